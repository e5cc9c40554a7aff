"""One file a revision; each says in SQL what it adds and how it is taken back."""
