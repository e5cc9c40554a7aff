"""Score recipes on a synthetic corpus with planted identifiers and an answer key."""
