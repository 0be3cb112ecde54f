"""Benchmarks, one file a subject: `python -m benchmarks.SUBJECT [--json]`."""
