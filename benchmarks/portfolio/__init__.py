"""Runs of configs on data sets of unlike shapes, and the starts of a search chosen from them.

`record` runs the configs and writes the tables (`tables`); `choose` picks the starting configs of
the space files from them; `pruning` replays successive halving over them; `replay` compares
samplers on `worlds`, which go on from them.
"""
