"""Numerical kernels, each tested against a plain reference."""
