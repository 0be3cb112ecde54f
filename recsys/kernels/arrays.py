"""Types of numpy arrays, for kernels and data. It imports no torch."""

from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer[Any]]
"""Array of integers of any width."""
