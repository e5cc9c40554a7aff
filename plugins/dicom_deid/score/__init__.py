"""A score for every recipe: a corpus with planted identifiers, an answer key, and a scorer that reads the outcome."""
