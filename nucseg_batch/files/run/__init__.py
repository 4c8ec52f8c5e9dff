"""What a run leaves beside the store: its journal, and the three tables."""
