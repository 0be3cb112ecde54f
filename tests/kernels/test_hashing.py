import numpy as np

from recsys.kernels.hashing import pack_pairs, splitmix64

GAMMA = 0x9E3779B97F4A7C15
"""Step from one state of SplitMix64 to the next."""


def test_splitmix64_gives_the_published_values() -> None:
    # Seed 1234567: https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64
    seed = 1234567
    states = np.array([(seed + step * GAMMA) % 2**64 for step in range(5)], dtype=np.uint64)
    assert splitmix64(states).tolist() == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_pairs_are_packed_by_user_and_item() -> None:
    item = np.array([2, 2**31 - 1, -1], dtype=np.int32)
    expected = [(7 << 32) + 2, (7 << 32) + 2**31 - 1, (7 << 32) + 2**32 - 1]
    assert pack_pairs(7, item).tolist() == expected
    by_user = pack_pairs(np.array([[0], [1]]), np.array([3, 4]))
    assert by_user.tolist() == [[3, 4], [2**32 + 3, 2**32 + 4]]
