"""Serving: saved models, and recommendations from them."""
