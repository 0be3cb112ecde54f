"""Benchmarks, one file per subject: `python -m benchmarks.SUBJECT [--json]`."""
