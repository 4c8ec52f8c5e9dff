"""What is on disk: images, masks, tables and the journal of a run."""
