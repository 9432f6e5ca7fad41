"""Programs for people and for `make`: pictures of the page, a soak, what tests need."""
