"""Training: the training loop, its optimisers and its losses."""
