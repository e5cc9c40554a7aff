"""The same pipeline without a scheduler."""
