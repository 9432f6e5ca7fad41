"""Socratic Chat Bot: a small language model that thinks it is Socrates."""

__version__ = "0.1.0"
