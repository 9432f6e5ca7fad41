"""Turns a conversation into the tokens of a prompt."""
