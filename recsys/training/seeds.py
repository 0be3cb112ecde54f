"""Generators that depend on a seed, an epoch and its part alone, so that a resumed training needs no saved generator."""

import numpy as np
import torch


def part_seed(seed: int, epoch: int, part: int) -> int:
    """A seed for one part of an epoch, both from 1; part 0 is the order of the rows, epoch 0 the drawing of the first weights."""
    return int(np.random.SeedSequence((seed, epoch, part)).generate_state(1, np.uint64)[0] >> 1)


def generator_of(seed: int, epoch: int, part: int, device: str | torch.device) -> torch.Generator:
    """A generator on `device` for one part of an epoch."""
    return torch.Generator(device).manual_seed(part_seed(seed, epoch, part))
