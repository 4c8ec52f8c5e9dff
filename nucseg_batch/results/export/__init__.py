"""Results in the formats of other tools: one file a format, a registry of them, and the loop that writes them all."""
