"""Tensors from numpy arrays."""

import warnings
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor


def as_tensor(array: npt.NDArray[Any], device: str | torch.device) -> Tensor:
    """Return the array as a tensor on `device`, on the CPU as a view of it."""
    with warnings.catch_warnings():
        # Arrays from Ray's object store are read-only. torch has no such tensors and warns;
        # nothing here writes to one.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array).to(device)
