"""A model for other programs: its network as ONNX or SavedModel, or a bioimage.io package."""
