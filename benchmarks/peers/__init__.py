"""Comparison with other recommender libraries, each in an environment of its own: see README.md."""
