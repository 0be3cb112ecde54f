"""Evaluation: ranking of items, metrics of ranks, and baselines."""
