"""The wire: HTTP/1.1 by hand. Knows nothing of models."""
