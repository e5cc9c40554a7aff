"""Rules and bytes in, de-identified bytes out; no I/O."""
