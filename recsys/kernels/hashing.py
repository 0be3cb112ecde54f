"""Hashes of ids: the splits draw from them, and ranking breaks ties by them."""

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]


def splitmix64(state: Words) -> Words:
    """Return the number that SplitMix64 draws from each state (...).

    It is a bijection of the 64-bit numbers. `state` must be an array, because numpy warns of the
    overflow of scalars.

    Source: Steele et al. 2014, doi:10.1145/2660193.2660195.
    """
    word = state + np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))


def pack_pairs(user: npt.ArrayLike, item: npt.NDArray[np.integer]) -> Words:
    """Return one number for each pair: the user in the upper 32 bits, the item in the lower 32.

    `user` and `item` broadcast. An item of -1 fills its 32 bits with ones.
    """
    upper = np.asarray(user, dtype=np.uint64) << np.uint64(32)
    # Through uint32, so that the sign of -1 stays out of the user's bits.
    return upper | item.astype(np.uint32).astype(np.uint64)
