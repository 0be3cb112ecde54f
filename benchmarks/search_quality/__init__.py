"""Comparison of searches on data sets of unlike shapes: `python -m benchmarks.search_quality`.

`searches` runs the systems, each with its own budget on two cores. `scores` ranks all validation
users by whatever a search held for its best trial at some time, so that the values of all systems
compare. `regret` and `targets` compute from them, and `report` prints the tables and the curves.
"""
