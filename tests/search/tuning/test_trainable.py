"""The trials of a worker, in the process of the test and called as Tune calls them."""

import itertools
import math
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
from ray import tune
from safetensors import safe_open
from safetensors.torch import load_file

from recsys.config.schema import Config, replace_values
from recsys.data.interactions import Interactions
from recsys.data.preprocessing.pipeline import prepare
from recsys.data.processed import load
from recsys.models import build_model
from recsys.search.record.summaries import OnAllUsers
from recsys.search.tuning import trainable
from recsys.search.tuning.messages import Diverged, Report, message_of
from recsys.search.tuning.trainable import CHECKPOINT, WEIGHTS, TrialRunner
from recsys.training.fit import fit


@pytest.fixture(scope="module")
def config(ratings: Path) -> Config:
    return replace_values(
        Config(),
        {
            "data.source": str(ratings),
            "training.max_epochs": 4,
            "training.batch_size": 128,
            "model.dropout": 0.2,
        },
    )


@pytest.fixture(scope="module")
def data(ray_here: None, config: Config, tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    return load(prepare(config, tmp_path_factory.mktemp("trial")), "validation", negatives=False)


@pytest.fixture(autouse=True)
def _threads() -> Any:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def tune_config(config: Config, number: int, seed: int) -> dict[str, Any]:
    return {
        "number": number,
        "seed": seed,
        "config": config.model_dump_json(),
        "pruning_steps": [2],
    }


def begin(data: Interactions, folder: Path, given: dict[str, Any]) -> Any:
    """Return a runner as Tune creates it, of a class without annotations."""
    make = tune.with_parameters(
        TrialRunner, data=[ray.put(data)], folder=str(folder), gpu_device="cpu"
    )
    runner = make(config=given)
    assert isinstance(runner, TrialRunner)
    return runner


def train(runner: Any) -> Report:
    """Step as Tune does; the worker's report."""
    message = message_of(runner.train())
    assert isinstance(message, Report)
    return message


def values(reports: list[Report]) -> list[tuple[int, float, bool]]:
    return [(report.epoch, report.metrics["val_ndcg_at_10"], report.is_last) for report in reports]


def expected(config: Config, data: Interactions, seed: int) -> list[tuple[int, float, bool]]:
    return [
        (epoch.epoch, epoch.metrics["val_ndcg_at_10"], epoch.is_last)
        for epoch in fit(config, data, seed)
    ]


def test_an_epoch_a_step(config: Config, data: Interactions, tmp_path: Path) -> None:
    runner = begin(data, tmp_path, tune_config(config, 3, seed=11))
    reports = [train(runner) for _ in range(4)]
    assert values(reports) == expected(config, data, 11)
    assert [report.is_last for report in reports] == [False, False, False, True]
    assert {
        "train_loss",
        "train_seconds",
        "rank_seconds",
        "samples_per_second",
        "val_mrr_at_10",
    } < set(reports[0].metrics)
    # Too short for a checkpoint.
    assert [path.name for path in tmp_path.rglob("*.*")] == [WEIGHTS]


def test_a_trial_that_ends_ranks_its_best_weights_on_all_users(
    config: Config, data: Interactions, tmp_path: Path
) -> None:
    sampled = replace_values(config, {"evaluation.max_users": 20})
    runner = begin(data, tmp_path, tune_config(sampled, 3, seed=11))
    reports = [train(runner) for _ in range(4)]
    assert [report.on_all_users for report in reports[:3]] == [None] * 3
    values = [report.metrics["val_ndcg_at_10"] for report in reports]
    best = values.index(max(values)) + 1  # on the sample
    assert best < 4
    on_all = list(fit(config, data, 11, n_epochs=best))[-1].metrics
    assert on_all["val_ndcg_at_10"] != values[best - 1]
    expected = OnAllUsers(on_all["val_ndcg_at_10"], on_all["val_ndcg_at_10_se"], best)
    assert reports[3].on_all_users == expected


def test_a_trial_that_ranks_all_users_ranks_them_no_further_time(
    config: Config, data: Interactions, tmp_path: Path
) -> None:
    many = replace_values(config, {"evaluation.max_users": 60, "training.max_epochs": 1})
    assert train(begin(data, tmp_path, tune_config(many, 3, seed=11))).on_all_users is None


def test_best_weights_are_saved_when_a_trial_may_be_pruned(
    config: Config, data: Interactions, tmp_path: Path
) -> None:
    runner = begin(data, tmp_path, tune_config(config, 3, seed=11))
    file, epochs = tmp_path / "3" / WEIGHTS, fit(config, data, 11)
    best = (0.0, 0)
    for is_rung in (False, True, False, True):  # after the second epoch, and after the last
        train(runner)
        epoch = next(epochs)
        value = epoch.metrics["val_ndcg_at_10"]
        if value > best[0]:
            best, weights = (
                (value, epoch.epoch),
                {name: w.clone() for name, w in epoch.state.model.state_dict().items()},
            )
        if not is_rung:
            assert file.exists() == (epoch.epoch > 2)
            continue
        with safe_open(file, framework="pt") as saved:
            assert saved.metadata()["epoch"] == str(best[1])
            saved_config = Config.model_validate_json(saved.metadata()["config"])
        model = build_model(saved_config.model, data.n_users, data.n_items, torch.Generator())
        model.load_state_dict(load_file(file))
        assert all(
            torch.equal(weight, weights[name]) for name, weight in model.state_dict().items()
        )


def test_a_trial_pruned_within_its_first_epoch_has_no_weights(
    config: Config, data: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.training.segments.SEGMENT", len(data.user) // 3)
    runner = begin(data, tmp_path, tune_config(config, 0, seed=11))
    assert [train(runner).is_whole_epoch for _ in range(3)] == [False, False, True]
    assert not list(tmp_path.rglob("*.*"))  # the rung is within the epoch


def test_only_a_worker_of_ray_ends_at_once(
    config: Config, data: Interactions, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    begin(data, tmp_path, tune_config(config, 0, seed=11))
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_process_runs_one_trial_after_another(
    config: Config, data: Interactions, tmp_path: Path
) -> None:
    runner = begin(data, tmp_path, tune_config(config, 0, seed=11))
    train(runner)
    other = replace_values(config, {"model.name": "gmf", "training.max_epochs": 2})
    assert runner.reset_config(tune_config(other, 1, seed=12))
    assert values([train(runner) for _ in range(2)]) == expected(other, data, 12)


def test_a_trial_resumes_from_its_checkpoint(
    config: Config, data: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainable, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(trainable, "CHECKPOINT_SHARE", math.inf)
    first = begin(data, tmp_path, tune_config(config, 0, seed=11))
    reports = [train(first) for _ in range(2)]
    # The process dies, and another starts the same trial.
    second = begin(data, tmp_path, tune_config(config, 0, seed=11))
    reports += [train(second) for _ in range(3)]
    # It reports the saved step again, since the first report may be lost.
    assert values(reports[1:2]) == values(reports[2:3])
    assert values(reports[:2] + reports[3:]) == expected(config, data, 11)
    # It dies again before it reports its last epoch.
    third = begin(data, tmp_path, tune_config(config, 0, seed=11))
    assert values([train(third), train(third)]) == values(reports[-2:])


def test_checkpoints_are_saved_by_seconds(
    config: Config, data: Interactions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each reading of the clock adds 16 s: 30 s have passed after the second epoch, and saving takes
    # so long that the next checkpoint has to wait. The last epoch needs none.
    clock = itertools.count(0, 16)
    monkeypatch.setattr(
        "recsys.search.tuning.trainable.time",
        SimpleNamespace(monotonic=lambda: float(next(clock)), time=time.time),
    )
    runner = begin(data, tmp_path, tune_config(config, 0, seed=11))
    saved = []
    for _ in range(4):
        train(runner)
        file = tmp_path / "0" / CHECKPOINT
        saved.append(file.stat().st_ino if file.exists() else None)
    # Each checkpoint would be a new file.
    assert saved[0] is None
    assert saved[1] == saved[2] == saved[3] is not None


def test_divergence_is_reported_and_not_raised(
    config: Config, data: Interactions, tmp_path: Path
) -> None:
    wild = replace_values(config, {"training.learning_rate": 1e30, "model.name": "inner_product"})
    message = message_of(begin(data, tmp_path, tune_config(wild, 0, seed=11)).train())
    assert isinstance(message, Diverged)
    assert message.reason.startswith("train_loss, epoch 1: must be finite, but got ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("cpu", "threads"), [(0.5, 1), (1.0, 1), (2.0, 2), (2.9, 2)])
def test_threads_are_the_cpus(
    config: Config, data: Interactions, tmp_path: Path, cpu: float, threads: int
) -> None:
    begin(data, tmp_path, tune_config(replace_values(config, {"resources.cpu": cpu}), 0, seed=1))
    assert torch.get_num_threads() == threads
