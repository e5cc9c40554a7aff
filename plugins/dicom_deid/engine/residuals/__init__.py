"""Search of the output for original values that the rules removed elsewhere."""
