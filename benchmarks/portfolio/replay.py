"""Compare samplers in searches on worlds (`worlds`), with the record, the pruner and the schedule.

Only training and ranking are replaced: a trial's reports arrive when a simulated clock says so.
Each data set's searches start from the configs that `choose` takes on the other ones. Prints the
mean score of the best report at parts of the budget, and the differences to the first sampler with
95% bootstrap intervals over worlds.
"""

import argparse
import heapq
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
import torch

from benchmarks.portfolio.choose import N_COPIES, N_STARTS, choose, copies, scores
from benchmarks.portfolio.configs import family, proposed_for
from benchmarks.portfolio.tables import Tables
from benchmarks.portfolio.worlds import World
from recsys.config.components import SAMPLERS
from recsys.config.schema import Config, get_value, replace_values
from recsys.search.choose_space import NEED_TIMES
from recsys.search.costs.work import EpochSeconds
from recsys.search.record.study_record import StudyRecord
from recsys.search.sampling.samplers import make_sampler
from recsys.search.space.search_space import SearchSpace
from recsys.search.space.space_file import read_space
from recsys.search.tuning.pruning import make_pruner
from recsys.search.tuning.schedule import Schedule
from recsys.search.tuning.searcher import StudySearcher

SPACE = Path(__file__).parents[2] / "search_spaces" / "ncf.yaml"
N_SLOTS = 2
PARTS = (0.25, 0.5, 1.0)
START_SECONDS = 0.3
NOISE = 0.01
"""Standard deviation of a report."""
_Array = npt.NDArray[np.float64]


class SimulatedSearch:
    """A search of one world; also the predictor of its times, which are exact once one was seen."""

    def __init__(self, world: World, space: SearchSpace, config: Config) -> None:
        self._world, self._space, self.is_measured = world, space, False
        budget = config.study.time_budget
        assert budget is not None
        self._budget, self._now = budget, 0.0
        study = optuna.create_study(direction="maximize")
        self._record = StudyRecord(study, config, space)
        self._record.enqueue_first_points()
        self._record.use(make_sampler(config, self._record, self))
        self._pruner = make_pruner(self._record, config)
        schedule = Schedule(
            budget,
            lambda: budget - self._now,
            self,
            n_slots=N_SLOTS,
            n_trials=None,
            mean_share=self._pruner.mean_share,
            n_segments=1,
        )
        self._searcher = StudySearcher(self._record, self._pruner, None, lambda: N_SLOTS, schedule)
        self._rng = np.random.default_rng(config.study.seed)
        self._events: list[tuple[float, int, int]] = []  # seconds, trial, epoch
        self._runs: dict[int, tuple[_Array, float]] = {}  # reports, and the seconds of an epoch

    def predict(self, config: Config) -> EpochSeconds:
        """Return the time of an epoch."""
        return EpochSeconds(self._world.seconds(self._point(config)), 0.0)

    def run(self) -> list[tuple[float, float]]:
        """Run the search, and return the seconds and the score of each report in time order."""
        reports = []
        for _ in range(N_SLOTS):
            self._start()
        while self._events and self._events[0][0] <= self._budget:
            self._now, number, epoch = heapq.heappop(self._events)
            values, seconds = self._runs[number]
            value, self.is_measured = float(values[epoch - 1]), True
            reports.append((self._now, value))
            self._record.report(number, epoch, value, {})
            if epoch == len(values):
                self._record.finish(number, "complete")
            elif epoch in self._pruner.steps_of(number) and self._pruner.prunes(number, epoch):
                self._record.finish(number, "pruned")
            else:
                heapq.heappush(self._events, (self._now + seconds, number, epoch + 1))
                continue
            self._start()
        return reports

    def _start(self) -> None:
        started = self._searcher.suggest("")
        if not isinstance(started, dict):
            return
        number = started["number"]
        config = self._record.config_of(number)
        curve = self._world.run(self._point(config), config.training.max_epochs)
        noise = self._rng.normal(0, NOISE, len(curve.values))
        self._runs[number] = curve.values + noise, float(curve.seconds[0])
        heapq.heappush(
            self._events, (self._now + START_SECONDS + float(curve.seconds[0]), number, 1)
        )

    def _point(self, config: Config) -> dict[str, Any]:
        return self._space.fill(lambda _, domain: get_value(config, domain.path))


def found(reports: list[tuple[float, float]], budget: float) -> list[float]:
    """Return the best score at each part of the budget, that of the median config before any."""
    return [
        max((score for now, score in reports if now <= part * budget), default=0.0)
        for part in PARTS
    ]


def starts_without(name: str, tables: Tables) -> list[Mapping[str, Any]]:
    """Return the starts that the other data sets choose."""
    families = [family(config) for config in tables.configs]
    others = [
        copy
        for other, curves in scores(tables.runs).items()
        if other != name
        for copy in copies(curves, families, other, N_COPIES)
    ]
    order = choose(others, N_STARTS, without=proposed_for(name, len(families)))
    return [tables.configs[number] for number in order]


def difference(some: _Array, others: _Array) -> tuple[float, float, float]:
    """Return the mean difference of scores, (n_sets, n_worlds), and its 95% bootstrap interval."""
    rng, means = np.random.default_rng(1), []
    gaps = some - others
    n_sets, n_worlds = gaps.shape
    for _ in range(4000):
        sets = rng.integers(0, n_sets, (n_sets, 1))
        means.append(gaps[sets, rng.integers(0, n_worlds, (n_sets, n_worlds))].mean())
    low, high = np.percentile(means, [2.5, 97.5])
    return float(gaps.mean()), float(low), float(high)


def main() -> None:
    """Print the figures of each sampler."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samplers", nargs="+", default=["gp", "tpe", "random"], choices=SAMPLERS)
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--worlds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    tables, space = Tables.read(), read_space(SPACE).fixed(NEED_TIMES, Config())
    data = scores(tables.runs)
    spaces = {name: replace(space, warm_start=tuple(starts_without(name, tables))) for name in data}
    bests: dict[str, _Array] = {}
    for sampler in options.samplers:
        settings = {"study.time_budget": options.seconds, "study.sampler": sampler}
        bests[sampler] = np.zeros((len(data), options.worlds, len(PARTS)))
        for row, (name, curves) in enumerate(data.items()):
            for seed in range(options.worlds):
                config = replace_values(Config(), {**settings, "study.seed": seed})
                world = World(space, tables.configs, curves, seed)
                reports = SimulatedSearch(world, spaces[name], config).run()
                bests[sampler][row, seed] = found(reports, options.seconds)
        texts = []
        for part in range(len(PARTS)):
            gap, low, high = difference(
                bests[sampler][:, :, part], bests[options.samplers[0]][:, :, part]
            )
            mean = bests[sampler][:, :, part].mean()
            texts.append(f"{mean:.3f} ({gap:+.3f}, {low:+.3f} to {high:+.3f})")
        sys.stdout.write(f"| {sampler} | {' | '.join(texts)} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
