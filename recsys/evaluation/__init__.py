"""Evaluation: ranks of held-out items, metrics of ranks, and baselines."""
