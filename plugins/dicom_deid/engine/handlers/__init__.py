"""Element handlers: one class per action, called by the parser."""
