"""Every figure that the documentation states, beside its peers."""
