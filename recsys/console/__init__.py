"""The terminal: standard streams, notes and progress."""
