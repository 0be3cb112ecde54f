"""Generators that depend on a seed and an epoch alone, so that a resumed training needs no saved generator."""

import numpy as np
import torch


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed for one epoch; epoch 0 is the drawing of the first weights."""
    return int(np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0] >> 1)


def generator_of(seed: int, epoch: int, device: str | torch.device) -> torch.Generator:
    """A generator on `device` for one epoch."""
    return torch.Generator(device).manual_seed(epoch_seed(seed, epoch))
