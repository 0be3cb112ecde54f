"""The splits of a data set: their names in settings and files, and their codes in rows."""

from typing import Literal

TRAIN, VALIDATION, TEST = range(3)

Split = Literal["train", "validation", "test"]
HeldOutSplit = Literal["validation", "test"]

SPLITS: tuple[Split, Split, Split] = ("train", "validation", "test")
"""The name of each split, by its code."""
HELD_OUT_SPLITS: tuple[HeldOutSplit, HeldOutSplit] = ("validation", "test")
