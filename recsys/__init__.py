"""A distributed hyperparameter search for neural collaborative filtering on implicit feedback."""
