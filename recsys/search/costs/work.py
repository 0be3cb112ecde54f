"""Work of an epoch: how long a config trains and ranks, from counts of what an epoch computes.

Each count is multiplied by the time that one of its units takes on one core. `predict` corrects
the result by the reports of the trials. The model is asked for its sizes, so this holds for any.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from recsys.config.components import LOSSES
from recsys.config.schema import Config
from recsys.data.manifest import Manifest
from recsys.data.ranked_users import count_held_out_users
from recsys.evaluation.scorers import HEAD_SHARE, MIN_HEAD
from recsys.kernels.lookup import rows_of
from recsys.models import SideName, build_model
from recsys.models.histories import HistoryModel
from recsys.training.full_softmax import MAX_ITEMS, MAX_SCORES
from recsys.training.optimiser import MIN_ROWS_PER_LOOKUP, MIN_VALUES
from recsys.training.row_solver import COLUMNS, longest_short

_UNIT_SECONDS = {
    # Gradient descent on samples: positives and drawn negatives.
    "sample": 1.45e-7,
    "hidden value of a sample": 4e-9,
    "dropped value of a sample": 2.2e-8,
    "batch": 8e-4,
    "parameter of a batch": 1.5e-4,
    "value of Adam on all rows": 2.4e-9,
    "value of Adam on a batch's rows": 2e-8,
    # Softmax over all unseen items.
    "product of a score": 3e-10,
    "item that a batch chooses from": 7e-7,
    # Least squares.
    "interaction of an equation": 1.36e-7,
    "product of an equation": 6.3e-11,
    "product of a solution": 1.67e-10,
    "value of a short row's interaction": 4.6e-9,
    "product of a rotation": 1.48e-10,
    # Ranking.
    "ranked user": 2e-5,
    "ranked pair": 2e-10,
    "product of a ranked pair": 8e-12,
}
"""Seconds per unit on one core of a Xeon with AVX-512 (docs/decisions/0038-predicted-costs.md)."""
_OPEN_SHARE = 0.3
"""Share of the users whose held-out positives are ranked among all items, beyond the head."""


@dataclass(frozen=True)
class EpochSeconds:
    """Times in seconds of an epoch, and of the end of a trial.

    `train`: of training an epoch. `rank`: of ranking after it, if it is ranked. `rank_all`: of
    ranking all users once after the last epoch, 0 if each ranking is of all of them.
    """

    train: float
    rank: float
    rank_all: float = 0.0

    def mean(self, config: Config) -> float:
        """Return the mean time of an epoch of a trial, of which not all are ranked."""
        return self.train + self.rank / config.evaluation.period

    def of_trial(self, config: Config) -> float:
        """Return the time of a trial that trains all of its epochs."""
        return config.training.max_epochs * self.mean(config) + self.rank_all

    def until_report(self, config: Config, n_segments: int) -> float:
        """Return the time until a trial reports: in its first ranked epoch, after a segment.

        The report of the last epoch has the value on all users.
        """
        n_unranked = min(config.evaluation.period, config.training.max_epochs) - 1
        is_last = n_segments == 1 and n_unranked + 1 == config.training.max_epochs
        seconds = n_unranked * self.train + (self.train + self.rank) / n_segments
        return seconds + (self.rank_all if is_last else 0.0)


def expected_seconds(config: Config, data: Manifest) -> EpochSeconds:
    """Return the time of an epoch of a config on one core, before anything was measured."""
    sizes = _Sizes.of(config)
    if LOSSES[config.training.loss].solver == "least_squares":
        work = _of_least_squares(config, data)
    elif config.training.negative_sampling == "all":
        work = _of_full_softmax(config, data, sizes)
    else:
        work = _of_samples(config, data, sizes)
    rank, share = _seconds(_of_ranking(config, data, sizes)), _ranked_share(config, data)
    return EpochSeconds(_seconds(work), rank, rank / share if share < 1 else 0.0)


def _seconds(work: Mapping[str, float]) -> float:
    return sum(_UNIT_SECONDS[unit] * count for unit, count in work.items())


@dataclass(frozen=True)
class _Sizes:
    """Sizes of a model.

    `row_widths`: values of a row of all embeddings and biases of each side. `n_shared`: number of
    tensors that all pairs share. `n_products`, `n_user_products`: their values, if each is one
    product per pair, or one per user. `score_width`: values of an item's first factor.
    `input_width`: values of an item's row that a user's side reads of a positive. `train_width`,
    `encode_width`: products for each pair besides the score, in training and to encode all users.
    `n_item_products`: products for each item of a batch, in place of `n_products`.
    """

    row_widths: Mapping[SideName, int]
    n_shared: int
    n_products: int
    n_user_products: int
    score_width: int
    input_width: int = 0
    train_width: int = 0
    encode_width: int = 0
    n_item_products: int = 0

    @classmethod
    def of(cls, config: Config) -> "_Sizes":
        model = build_model(config.model, 1, 1, torch.Generator())
        rows: dict[SideName, list[str]] = {
            side: model.row_parameters(side) for side in ("user", "item")
        }
        of_rows = {name for names in rows.values() for name in names}
        shared = [p.numel() for name, p in model.named_parameters() if name not in of_rows]
        widths = {
            side: sum(model.get_parameter(name).numel() for name in names)
            for side, names in rows.items()
        }
        n_products, score_width = sum(shared), rows_of(model.item_side(None).factors[0]).shape[-1]
        if isinstance(model, HistoryModel):
            input_width = model.input_rows().weight.shape[1]
            further = (input_width, model.train_width, model.encode_width)
            return cls(widths, len(shared), 0, n_products, score_width, *further)
        per_item = model.item_products
        per_pair = 0 if per_item else n_products
        return cls(widths, len(shared), per_pair, 0, score_width, n_item_products=per_item)


def _of_least_squares(config: Config, data: Manifest) -> dict[str, float]:
    """Return the work: that of short rows by interactions, that of the others by columns.

    The numbers of interactions of a side's rows are taken to be exponentially distributed.
    """
    dim, n_pairs = config.model.embedding_dim, data.n_train + data.n_low
    columns, solved = min(dim, COLUMNS), [data.n_users, data.n_items]
    if config.training.recency_half_life is not None or data.holds_out_users:
        solved.append(data.n_users)  # those that the items are solved given, and the model's
    n_short_pairs = n_long_rows = 0.0
    for n_rows in solved:
        longest = longest_short(dim) * n_rows / n_pairs  # in mean numbers of interactions
        n_long_rows += n_rows * math.exp(-longest)
        n_short_pairs += n_pairs * (1 - (1 + longest) * math.exp(-longest))
    return {
        "interaction of an equation": len(solved) * n_pairs,
        "product of an equation": (len(solved) * n_pairs - n_short_pairs) * dim * columns,
        "product of a solution": n_long_rows * dim * columns**2,
        "value of a short row's interaction": n_short_pairs * dim,
        "product of a rotation": sum(solved) * dim**2,
    }


def _of_full_softmax(config: Config, data: Manifest, sizes: _Sizes) -> dict[str, float]:
    n_drawn, batch_size = min(data.n_items, MAX_ITEMS), config.training.batch_size
    n_scores = data.n_users * n_drawn
    n_batches = math.ceil(max(data.n_train / batch_size, n_scores / MAX_SCORES))
    n_items = data.n_items if n_drawn == data.n_items else n_drawn + batch_size
    return {
        "product of a score": n_scores * (sizes.score_width + sizes.train_width)
        + data.n_train * sizes.input_width
        + data.n_users * sizes.n_user_products
        + data.n_users * data.n_items * sizes.encode_width
        + n_batches * n_items * sizes.n_item_products,
        "batch": n_batches,
        "item that a batch chooses from": n_batches * data.n_items if n_items > n_drawn else 0,
        **_of_adam(data, sizes, n_batches, {"user": data.n_users / n_batches, "item": n_items}),
    }


def _of_samples(config: Config, data: Manifest, sizes: _Sizes) -> dict[str, float]:
    training = config.training
    with_low = LOSSES[training.loss].takes_low_ratings and config.data.low_ratings == "negative"
    n_samples = data.n_train * (1 + training.n_negatives) + (data.n_low if with_low else 0)
    n_batches = math.ceil(data.n_train / training.batch_size)
    n_hidden = n_samples * math.sqrt(sizes.n_products)
    lookups: dict[SideName, float] = {
        "user": data.n_train / n_batches,
        "item": n_samples / n_batches,
    }
    return {
        "sample": n_samples,
        "hidden value of a sample": n_hidden,
        "dropped value of a sample": n_hidden if config.model.dropout else 0,
        "product of a score": n_batches
        * min(n_samples / n_batches, data.n_items)
        * sizes.n_item_products,
        "batch": n_batches,
        "parameter of a batch": n_batches * sizes.n_shared,
        **_of_adam(data, sizes, n_batches, lookups),
    }


def _of_adam(
    data: Manifest, sizes: _Sizes, n_batches: int, lookups: Mapping[SideName, float]
) -> dict[str, float]:
    """Return the values that Adam updates, by rows where `training.optimiser` does."""
    on_all, on_rows = 0.0, 0.0
    numbers: dict[SideName, int] = {"user": data.n_users, "item": data.n_items}
    for side, n_rows in numbers.items():
        width, n_lookups = sizes.row_widths[side], min(lookups[side], n_rows)
        if (n_rows - MIN_ROWS_PER_LOOKUP * n_lookups) * width >= MIN_VALUES:
            on_rows += n_batches * n_lookups * width
        else:
            on_all += n_batches * n_rows * width
    return {"value of Adam on all rows": on_all, "value of Adam on a batch's rows": on_rows}


def _ranked_share(config: Config, data: Manifest) -> float:
    """Return the share of the held-out users that a ranking takes."""
    n_users = count_held_out_users(data)
    return min(1.0, (config.evaluation.user_limit or n_users) / n_users)


def _of_ranking(config: Config, data: Manifest, sizes: _Sizes) -> dict[str, float]:
    evaluation, n_users = config.evaluation, count_held_out_users(data)
    share = _ranked_share(config, data)
    if evaluation.protocol == "sampled":
        n_pairs: float = data.n_validation * (1 + evaluation.n_candidates)
    else:
        n_head = max(MIN_HEAD, data.n_items // HEAD_SHARE)
        n_pairs = n_users * min(data.n_items, n_head + _OPEN_SHARE * data.n_items)
    n_products = sizes.row_widths["item"] - sizes.input_width + sizes.n_products
    return {
        "ranked user": share * n_users,
        "ranked pair": share * n_pairs,
        "product of a ranked pair": share
        * (n_pairs * n_products + n_users * sizes.n_user_products),
    }
