"""Makes models: annotated data, augmentation, fitting and tuning."""
