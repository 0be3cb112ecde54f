import warnings
from collections import Counter

import numpy as np
import pytest
import torch

from recsys.config.schema import Config
from recsys.data.interactions import Interactions
from recsys.kernels.tensors import as_tensor
from recsys.training import batches
from recsys.training.batches import training_rows
from recsys.training.row_batch import RowBatch
from recsys.training.segments import count_segments
from tests.training.small_data import make_interactions, two_tastes, with_fixed_negatives


def config(**training: object) -> Config:
    return Config.model_validate({"training": {"batch_size": 100, "n_negatives": 3, **training}})


def one_epoch(
    data: Interactions, seed: int = 0, n_segments: int = 1, **training: object
) -> list[RowBatch]:
    rows, generator = (
        training_rows(config(**training), data, "cpu", n_segments),
        torch.Generator().manual_seed(seed),
    )
    order = rows.shuffle(generator)
    return [
        batch
        for segment in range(rows.n_segments)
        for batch in rows.batches(order, segment, generator)
    ]


def positives(epoch: list[RowBatch]) -> list[tuple[int, int]]:
    return [
        pair
        for batch in epoch
        for pair in zip(batch.user.tolist(), batch.item[:, 0].tolist(), strict=True)
    ]


@pytest.mark.parametrize(("stretch", "n_segments"), [(1 << 18, 1), (150, 1), (150, 3)])
def test_an_epoch_has_every_row_once_with_unseen_negatives(
    stretch: int, n_segments: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "STRETCH", stretch)
    data = two_tastes()
    epoch = one_epoch(data, n_segments=n_segments)
    assert Counter(positives(epoch)) == Counter(
        zip(data.user.tolist(), data.item.tolist(), strict=True)
    )
    low = [
        pair
        for batch in epoch
        for pair in zip(batch.low_user.tolist(), batch.low_item.tolist(), strict=True)
    ]
    assert Counter(low) == Counter(zip(data.low_user.tolist(), data.low_item.tolist(), strict=True))
    seen = set(zip(data.seen.users().tolist(), data.seen.items.tolist(), strict=True))
    drawn = [
        (u, i)
        for batch in epoch
        for u, row in zip(batch.user.tolist(), batch.item[:, 1:].tolist(), strict=True)
        for i in row
    ]
    assert len(drawn) == 3 * 480
    assert not seen & set(drawn)


def test_batches_are_of_equal_size_and_the_explicit_negatives_are_spread_over_them() -> None:
    epoch = one_epoch(two_tastes())  # 480 positives, 120 low ratings
    assert [len(batch.user) for batch in epoch] == [96] * 5
    assert [len(batch.low_user) for batch in epoch] == [24] * 5
    assert epoch[0].item.shape == (96, 4)


def test_a_long_epoch_has_segments_of_whole_batches() -> None:
    n_positives = (1, 6_000_000, 7_000_000, 30_000_000)  # 2^22 = 4.2 M a segment
    assert [count_segments(n) for n in n_positives] == [1, 1, 2, 7]
    rows = training_rows(config(), two_tastes(), "cpu", n_segments=2)
    generator = torch.Generator().manual_seed(0)
    order = rows.shuffle(generator)
    # 5 batches of 96 positives and 24 explicit negatives in 2 segments.
    found = [list(rows.batches(order, segment, generator)) for segment in range(2)]
    assert [len(segment) for segment in found] == [2, 3]
    assert [rows.n_rows_of(order, n) for n in range(3)] == [0, 192 + 48, 480 + 120]
    assert [rows.n_samples_of(order, n) for n in range(3)] == [0, 192 * 4 + 48, 480 * 4 + 120]


def test_the_order_and_the_negatives_depend_on_the_generator_alone() -> None:
    data = two_tastes()
    first, same, other = (
        torch.cat([batch.item for batch in one_epoch(data, seed)]) for seed in (1, 1, 2)
    )
    assert torch.equal(first, same)
    assert not torch.equal(first[:, 0], other[:, 0])
    assert not torch.equal(first[:, 0], torch.from_numpy(data.item).long())


@pytest.mark.parametrize(
    ("loss", "low_ratings", "expected"),
    [("bce", "negative", 120), ("bce", "ignore", 0), ("bpr", "negative", 0)],
)
def test_low_ratings_are_trained_on_by_bce_where_they_are_negatives(
    loss: str, low_ratings: str, expected: int
) -> None:
    settings = Config.model_validate(
        {"data": {"low_ratings": low_ratings}, "training": {"loss": loss, "n_negatives": 3}}
    )
    rows = training_rows(settings, two_tastes(), "cpu", n_segments=1)
    assert len(rows.low_user) == expected
    assert rows.n_rows_of(rows.shuffle(torch.Generator()), 1) == 480 + expected


def test_fixed_negatives_stay_with_their_positive() -> None:
    data = with_fixed_negatives(two_tastes(), 4)
    assert data.negatives is not None
    expected = {
        (u, i): row[:2]
        for u, i, row in zip(
            data.user.tolist(), data.item.tolist(), data.negatives.tolist(), strict=True
        )
    }
    for batch in one_epoch(data, resample_negatives=False, n_negatives=2):
        for user, row in zip(batch.user.tolist(), batch.item.tolist(), strict=True):
            assert row[1:] == expected[user, row[0]]


def test_popular_items_are_drawn_more_often_where_asked_for() -> None:
    # Item 0 has 20 positives, items 1 to 20 one each. Users 20 to 39 have seen neither item 0 nor
    # each other's items.
    train = [(user, 0) for user in range(20)] + [(20 + n, 1 + n) for n in range(20)]
    data = make_interactions(40, 21, train, [])
    counts = {
        sampling: sum(
            int((batch.item[batch.user >= 20, 1:] == 0).sum())
            for batch in one_epoch(
                data, negative_sampling=sampling, popularity_alpha=1.0, n_negatives=500
            )
        )
        for sampling in ("uniform", "popularity")
    }
    assert counts["uniform"] == pytest.approx(20 * 500 / 20, rel=0.15)
    assert counts["popularity"] == pytest.approx(20 * 500 * 20 / 39, rel=0.05)


def test_the_softmax_correction_is_the_logarithm_of_the_draws_weights() -> None:
    train = [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (1, 2)]
    data = make_interactions(4, 3, train, [])
    settings = config(loss="softmax", negative_sampling="popularity", popularity_alpha=0.5)
    weights = training_rows(settings, data, "cpu", n_segments=1).log_weights
    assert weights is not None
    assert (weights - weights[1]).tolist() == pytest.approx([np.log(2), 0, 0], abs=1e-6)
    assert training_rows(config(loss="softmax"), data, "cpu", n_segments=1).log_weights is None
    assert (
        training_rows(config(negative_sampling="popularity"), data, "cpu", n_segments=1).log_weights
        is None
    )


def test_fixed_negatives_that_the_data_lacks_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"training\.resample_negatives: must be true, but got false"
    ):
        training_rows(config(resample_negatives=False), two_tastes(), "cpu", n_segments=1)


def test_a_read_only_array_is_viewed_without_copy_or_warning() -> None:
    array = np.arange(5, dtype=np.int32)
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensor = as_tensor(array, "cpu")
    assert tensor.data_ptr() == array.ctypes.data
