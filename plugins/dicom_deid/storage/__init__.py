"""Object stores: list, read, write, large objects."""
