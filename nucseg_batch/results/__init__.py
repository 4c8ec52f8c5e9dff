"""What a run made, read again: its tables, masks and pixels, and what people take away from them."""
