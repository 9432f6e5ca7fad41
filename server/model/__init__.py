"""The model: fetching it, feeding it, stopping it. Knows nothing of HTTP."""
