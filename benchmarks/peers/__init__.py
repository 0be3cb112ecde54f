"""The same work done by recsys and by other recommender libraries, each in an environment of its own: see README.md here."""
