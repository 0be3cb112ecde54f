"""Segments of a long epoch: their number, and the seeds of their random draws.

A resumed training needs no saved generator, since every draw depends on a seed, an epoch and a
segment alone.
"""

import numpy as np
import torch

SEGMENT = 1 << 22
"""Approximate positives of a segment: they take minutes on a core with any model."""


def count_segments(n_positives: int) -> int:
    """Return the number of segments of an epoch of `n_positives`.

    It depends on the data alone, so that all trials of a study report at the same steps.
    """
    return max(1, round(n_positives / SEGMENT))


def is_ranked(epoch: int, period: int, last: int) -> bool:
    """Return whether held-out items are ranked after an epoch: each `period`-th and the last."""
    return epoch % period == 0 or epoch >= last


def first_ranked_step(step: int, n_segments: int, period: int) -> int:
    """Return the first step from `step` on whose epoch is a multiple of `period`."""
    epoch = -(-step // n_segments)
    if epoch % period == 0:
        return step
    return ((epoch // period + 1) * period - 1) * n_segments + 1


def segment_seed(seed: int, epoch: int, segment: int) -> int:
    """Return a seed for a segment of an epoch, both counted from 1.

    Segment 0 is for the order of the rows, epoch 0 for the initial weights and for the start.
    """
    sequence = np.random.SeedSequence((seed, epoch, segment))
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)


def generator_of(
    seed: int, epoch: int, segment: int, device: str | torch.device
) -> torch.Generator:
    """Return a generator on `device` for a segment of an epoch."""
    return torch.Generator(device).manual_seed(segment_seed(seed, epoch, segment))
