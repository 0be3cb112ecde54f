"""Ranking all items, seen ones masked, on one core.

The limit is the same number of floating-point operations at the speed of one large matrix product.
A ratio above 1 is possible: `a @ b` uses MKL, layers of all items use oneDNN, whose kernels are
faster on some processors. The plain block is the plain way: score 64 users with one call of the
model, and count the scores above the target's.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from benchmarks.interactions import SIZES, draw_index, make_interactions
from benchmarks.measure import Row, Target, in_turns, rate, ratios, run, spread
from benchmarks.memory import rise_megabytes
from recsys.config.sections import ModelConfig
from recsys.data.interactions import Interactions
from recsys.evaluation.ranking import rank_all
from recsys.evaluation.scorers import ModelScorer
from recsys.models import Model, build_model

DATA = {"671 x 9,066": (671, 9_066, 50_000), "138,493 x 26,744": SIZES["138,493 x 26,744"]}
"""Users, items and interactions: the embedded data set's, and MovieLens-20M's."""
MODELS = {
    ("neumf", 16): 0.15,
    ("neumf", 32): 0.30,
    ("neumf", 64): 0.45,
    ("inner_product", 64): None,
}
"""Names and embedding widths, with the share of the matrix product's speed to reach."""
N_USERS = 256
"""Users whose items are ranked; the memory is also measured with twice as many."""
SAME_MEMORY = 1.25
"""Bound that allows for memory that the allocator keeps.

A matrix of all users' scores would raise the peak by a factor of 1.3 to 1.9.
"""
PLAIN_BLOCK = 64
MATRIX = 2048
REPEATS = 5


def measure() -> Iterator[Row]:
    """Measure the speed and memory of every model at every size of data."""
    torch.set_num_threads(1)
    for size, numbers in DATA.items():
        index = draw_index(*numbers)
        data = (make_interactions(index, 1, N_USERS), make_interactions(index, 1, 2 * N_USERS))
        for (name, dim), share in MODELS.items():
            config = ModelConfig.model_validate({"name": name, "embedding_dim": dim})
            model = build_model(config, *numbers[:2], torch.Generator().manual_seed(0)).eval()
            row = _measure_case(f"{name} d={dim}, {size}", model, _pair_flops(config), data, share)
            yield replace(row, at={"model": f"{name} d={dim}", "items": numbers[1]})


def _measure_case(
    case: str,
    model: Model,
    flops: int,
    data: tuple[Interactions, Interactions],
    share: float | None,
) -> Row:
    single, double = data
    measured = in_turns(
        {
            "ranked": rate(lambda: _rank(model, single), N_USERS),
            "plain block": rate(lambda: _rank_plainly(model, single), N_USERS),
            "matrix product": _users_by_matrix_product(flops * single.n_items),
        },
        REPEATS,
    )
    of_matrix = ratios(measured["ranked"], measured["matrix product"])
    speed_up = ratios(measured["ranked"], measured["plain block"])
    values = {f"{name}, users/s": spread(rates) for name, rates in measured.items()}
    memory = in_turns(
        {
            "peak, MB": lambda: rise_megabytes(lambda: _rank(model, single)),
            "peak for twice the users, MB": lambda: rise_megabytes(lambda: _rank(model, double)),
        },
        REPEATS,
    )
    values |= {name: spread(megabytes) for name, megabytes in memory.items()}
    growth = ratios(memory["peak for twice the users, MB"], memory["peak, MB"])
    targets = [
        Target("peak for twice the users, ratio to the peak", growth, SAME_MEMORY, at_least=False)
    ]
    if share is None:
        return Row(
            case,
            values
            | {"ratio to the matrix product": of_matrix, "ratio to the plain block": speed_up},
            targets,
        )
    targets += [
        Target("ratio to the matrix product", of_matrix, share),
        Target("ratio to the plain block", speed_up, 3),
    ]
    return Row(case, values, targets)


def _rank(model: Model, data: Interactions) -> None:
    assert data.held_out is not None
    rank_all(ModelScorer(model, data.n_items), data.held_out, data.seen)


@torch.inference_mode()
def _rank_plainly(model: Model, data: Interactions) -> None:
    assert data.held_out is not None
    users, targets = (
        torch.from_numpy(ids).long() for ids in (data.held_out.user, data.held_out.item)
    )
    items = torch.arange(data.n_items)
    for first in range(0, len(users), PLAIN_BLOCK):
        block = slice(first, first + PLAIN_BLOCK)
        scores = model(users[block], items)
        (scores > scores.gather(1, targets[block].unsqueeze(1))).sum(1)


def _users_by_matrix_product(flops: int) -> Callable[[], float]:
    """Return a measurement: users per second, of `flops` each, by one large matrix product."""
    a, b = torch.randn(2, MATRIX, MATRIX, generator=torch.Generator().manual_seed(0))
    return rate(lambda: a @ b, 2 * MATRIX**3 / flops)


def _pair_flops(config: ModelConfig) -> int:
    """Return the multiplications and additions for a pair of user and item.

    The two products of the first tower layer do not count: they are computed once per user and per
    item.
    """
    dim = config.embedding_dim
    if config.name == "inner_product":
        return 2 * dim
    widths = [2 * dim >> layer for layer in range(config.n_layers)]
    tower = 2 * widths[0] + sum(2 * a * b for a, b in itertools.pairwise(widths)) + 2 * widths[-1]
    return 2 * dim + tower


if __name__ == "__main__":
    run("ranking", measure)
