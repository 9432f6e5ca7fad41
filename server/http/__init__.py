"""The wire: a hand-written HTTP/1.1 server. Knows nothing of models."""
