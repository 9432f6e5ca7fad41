"""Measurements: one question per script. See README.md."""
