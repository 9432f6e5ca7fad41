"""Socratic Chat Bot: a small language model that thinks it is Socrates, on a hand-written server."""

__version__ = "0.1.0"
