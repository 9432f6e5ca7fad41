"""Fetches models, in a process of its own: the server never imports this."""
