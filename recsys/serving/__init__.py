"""Serving: saved models and their recommendations."""
