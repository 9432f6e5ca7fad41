"""Fetching models: a process of its own, never the server's."""
