"""Model files: which there are, what is in them, what they need."""
