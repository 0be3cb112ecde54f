"""Drawing negatives, exactly and for many rows of an epoch at a time, on one core.

The limit is one random gather of the same size.
docs/decisions/0011-fast-negative-sampling.md describes what a compiled sampler, such as LensKit's,
would save.
"""

from collections.abc import Iterator
from dataclasses import replace

import torch

from benchmarks.interactions import SIZES, draw_index, make_interactions
from benchmarks.measure import Row, Target, in_turns, rate, ratios, run, spread
from recsys.config.schema import Config
from recsys.data.negatives import popularity_weights
from recsys.training.batches import SLICE, STRETCH
from recsys.training.negatives import TorchNegativeSampler

N_NEGATIVES = 4
REPEATS = 15
MUST_REACH = 12.0
"""Million draws per second."""


def measure() -> Iterator[Row]:
    """Measure draws at every size of data, uniform and by popularity, for users in both orders."""
    torch.set_num_threads(1)
    alpha = Config().training.popularity_alpha
    for size, numbers in SIZES.items():
        index = draw_index(*numbers)
        generator = torch.Generator().manual_seed(0)
        in_order = torch.from_numpy(make_interactions(index, STRETCH, 1).user).long()
        shuffled = in_order[torch.randperm(STRETCH, generator=generator)]
        for kind, weights in {
            "uniform": None,
            "popularity": popularity_weights(index.items, index.n_items, alpha),
        }.items():
            sampler = TorchNegativeSampler(index, weights, "cpu")
            for order, users in {"in order": in_order, "shuffled": shuffled}.items():
                row = _measure_case(
                    f"{kind}, users {order}, {size}", sampler, users, generator, len(index.items)
                )
                yield replace(
                    row,
                    at={"draws": f"{kind}, users {order}", "interactions": len(index.items)},
                )


def _measure_case(
    case: str,
    sampler: TorchNegativeSampler,
    users: torch.Tensor,
    generator: torch.Generator,
    n_seen: int,
) -> Row:
    n_draws = len(users) * N_NEGATIVES
    values = torch.arange(n_seen)
    indices = torch.randint(len(values), (n_draws,), generator=generator)
    measured = in_turns(
        {
            "sampler": rate(
                lambda: [
                    sampler.sample(block, N_NEGATIVES, generator)
                    for block in torch.split(users, SLICE)
                ],
                n_draws / 1e6,
            ),
            "gather": rate(lambda: values.index_select(0, indices), n_draws / 1e6),
        },
        REPEATS,
    )
    spreads = {f"{name}, M/s": spread(rates) for name, rates in measured.items()}
    spreads["ratio to the gather"] = ratios(measured["sampler"], measured["gather"])
    return Row(case, spreads, [Target("M/s", spread(measured["sampler"]), MUST_REACH)])


if __name__ == "__main__":
    run("sampling", measure)
