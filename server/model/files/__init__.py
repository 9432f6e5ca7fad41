"""Model files: which ones exist, what is in them, what they need."""
