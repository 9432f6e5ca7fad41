"""What the measurements share; no script of its own."""
