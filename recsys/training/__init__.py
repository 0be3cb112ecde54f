"""The training loop, its losses, the ranking of items and the metrics of ranks."""
