"""Measurements: one question a script. See README.md."""
