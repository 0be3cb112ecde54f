import errno
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune import PlacementGroupFactory
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from recsys.config.schema import Config, replace_values
from recsys.search.record.running_trial import trial_seed
from recsys.search.record.study_record import StudyRecord
from recsys.search.space.space_file import parse_space
from recsys.search.tuning.messages import DiskFull, Diverged, Message, Report, as_result
from recsys.search.tuning.pruning import make_pruner, rungs
from recsys.search.tuning.recorder import Recorder
from recsys.search.tuning.searcher import StudySearcher

SPACE = parse_space(
    {
        "parameters": {"model.embedding_dim": {"low": 8, "high": 64}},
        "warm_start": [{"model.embedding_dim": 32}],
    },
    "",
)


class Search:
    """A recorder and a searcher as Tune calls them, on a study in memory.

    Trials may be pruned after 1, 3 and 9 epochs unless `values` say otherwise.
    """

    def __init__(self, n_segments: int = 1, **values: object) -> None:
        values = {"study__grace_period": 1, **values}
        config = replace_values(
            Config(), {path.replace("__", "."): value for path, value in values.items()}
        )
        self.study = optuna.create_study(direction="maximize")
        self.study.set_user_attr("start", {"parts": n_segments})
        self.record = StudyRecord(self.study, config, SPACE)
        self.n_slots = 10
        pruner = make_pruner(self.record, config)
        self.searcher = StudySearcher(
            self.record, pruner, config.study.trial_limit, lambda: self.n_slots, None
        )
        self.scheduler = Recorder(self.record, pruner, config)

    def suggest(self) -> Any:
        return self.searcher.suggest(f"tune-{len(self.study.trials)}")

    def begin(self) -> int:
        return int(self.suggest()["number"])

    def report(self, number: int, step: int, value: float, *, is_last: bool = False) -> str:
        n_segments = self.record.n_segments
        metrics = {"val_ndcg_at_10": value, "train_loss": 1.0}
        report = Report(
            -(-step // n_segments), step, step % n_segments == 0, metrics, is_last, started=0.0
        )
        return self.send(number, report)

    def send(self, number: int, message: Message) -> str:
        result = {**as_result(message), "node_ip": "10.0.0.1"}
        return self.scheduler.on_trial_result(cast(Any, None), self._trial(number), result)

    def fail(self, number: int, *errors: str, gpu: float = 0.0, status: str = Trial.ERROR) -> float:
        """Report a failure as Tune does; return the share of a GPU that the trial then requests."""
        trial = self._trial(number)
        trial.update_resources({"cpu": 1, "gpu": gpu})
        trial.status = status
        with tempfile.TemporaryDirectory() as folder:
            cast(Any, trial.run_metadata).error_filename = "error.txt"
            trial.storage = cast(Any, SimpleNamespace(trial_driver_staging_path=folder))
            texts = [
                f"Failure # {attempt} (occurred at noon)\n{error}\n"
                for attempt, error in enumerate(errors, start=1)
            ]
            Path(folder, "error.txt").write_text("".join(texts))
            self.scheduler.on_trial_error(cast(Any, None), trial)
        needed = cast(PlacementGroupFactory, trial.placement_group_factory).required_resources
        assert needed["CPU"] == 1
        return needed.get("GPU", 0.0)

    def _trial(self, number: int) -> Trial:
        return Trial("none", config={"number": number}, stub=True)


@pytest.mark.parametrize(
    ("max_epochs", "grace_period", "reduction_factor", "n_segments", "expected"),
    [
        (20, 1, 3, 1, {1, 3, 9}),
        # By default a fifth of the epochs, and at least one.
        (20, None, 3, 1, {4, 12}),
        (50, None, 3, 1, {10, 30}),
        (4, None, 3, 1, {1, 3}),
        (9, 1, 3, 1, {1, 3}),
        (20, 2, 4, 1, {2, 8}),
        (1, 1, 3, 1, set()),
        (5, 5, 3, 1, set()),
        # Several segments an epoch: after 1, 3 and 9 epochs; a fraction is rounded up to a segment.
        (20, 1, 3, 7, {7, 21, 63}),
        (1, 0.2, 3, 7, {2, 5}),
        (2, 0.5, 2, 1, {1}),
    ],
)
def test_rungs(
    max_epochs: int,
    grace_period: float | None,
    reduction_factor: int,
    n_segments: int,
    expected: set[int],
) -> None:
    values = {"study.grace_period": grace_period, "study.reduction_factor": reduction_factor}
    assert (
        rungs(replace_values(Config(), {"training.max_epochs": max_epochs, **values}), n_segments)
        == expected
    )


@pytest.mark.parametrize(
    ("every", "n_segments", "expected"),
    [
        (1, 1, {1, 3, 9}),
        (2, 1, {2, 4, 10}),
        (3, 1, {3, 9}),  # two rungs fall together
        (19, 1, {19}),
        (20, 1, set()),
        # Epochs 3, 6 and so on are ranked, each after its first segment too.
        (3, 7, {2 * 7 + 1, 3 * 7, 9 * 7}),
    ],
)
def test_rungs_are_ranked_steps(every: int, n_segments: int, expected: set[int]) -> None:
    values = {"training.max_epochs": 20, "evaluation.every": every, "study.grace_period": 1}
    assert rungs(replace_values(Config(), values), n_segments) == expected


def test_an_epoch_that_is_not_ranked_has_no_value() -> None:
    search = Search(evaluation__every=2, training__max_epochs=3)
    number = search.begin()
    for epoch, metrics in ((1, {}), (2, {"val_ndcg_at_10": 0.5}), (3, {"val_ndcg_at_10": 0.4})):
        report = Report(epoch, epoch, True, {"train_loss": 1.0, **metrics}, epoch == 3, started=0.0)
        search.send(number, report)
    assert search.record.values_of(number) == {2: 0.5, 3: 0.4}
    summary = search.record.summary(number)
    assert (summary.state, summary.value, summary.epoch, summary.epochs) == ("complete", 0.5, 2, 3)


def test_a_trial_is_stopped_within_a_long_epoch() -> None:
    search = Search(n_segments=4, study__grace_period=0.5)
    search.record.enqueue_first_points()
    best, other, worse = search.begin(), search.begin(), search.begin()
    assert [search.report(best, step, 0.3) for step in (1, 2)] == ["CONTINUE", "CONTINUE"]
    assert [search.report(other, step, 0.2) for step in (1, 2)] == ["CONTINUE", "CONTINUE"]
    assert [search.report(worse, step, 0.1) for step in (1, 2)] == ["CONTINUE", "STOP"]
    # A trial has a value, by which it may be chosen, from its first whole epoch on.
    pruned = search.record.summaries()[worse]
    assert (pruned.state, pruned.epochs, pruned.value, pruned.choosable) == (
        "pruned",
        0,
        None,
        False,
    )
    for step, value in ((3, 0.9), (4, 0.2), (5, 0.8)):
        search.report(best, step, value)
    running = search.record.summaries()[best]
    assert (running.epochs, running.value, running.epoch) == (1, 0.2, 1)


def test_trials_begin_while_there_are_slots() -> None:
    search = Search()
    search.n_slots = 2
    first, _ = search.begin(), search.begin()
    assert search.suggest() is None
    search.n_slots = 3  # nodes have joined the cluster
    third = search.begin()
    assert search.suggest() is None
    search.n_slots = 1  # nodes have left: two of the three trials must end before another starts
    for number in (first, third):
        search.report(number, 20, 0.5, is_last=True)
        assert search.suggest() is None
    search.n_slots = 2
    search.begin()


def test_a_third_survives_a_rung_and_the_best_of_fewer() -> None:
    search = Search()
    decided = []
    # By hand: of n trials at the rung, the last survives if fewer than n // 3 are better, or none
    # where n is below 3.
    for value in (0.5, 0.4, 0.45, 0.7, 0.6, 0.6, 0.55, 0.65, 0.66, 0.61):
        decided.append(search.report(search.begin(), 1, value) == "CONTINUE")
    assert decided == [True, False, False, True, False, True, False, True, True, False]
    states = [trial.state == TrialState.RUNNING for trial in search.study.trials]
    assert states == decided
    assert search.study.trials[2].state == TrialState.PRUNED
    assert search.study.trials[2].intermediate_values == {1: 0.45}


def test_start_points_are_pruned_only_among_three() -> None:
    search = Search()
    search.record.enqueue_first_points()  # the default config and one warm start
    default, warm_start, proposed = search.begin(), search.begin(), search.begin()
    assert search.report(proposed, 1, 0.5) == "CONTINUE"
    assert search.report(default, 1, 0.4) == "CONTINUE"
    assert search.report(warm_start, 1, 0.45) == "STOP"


def test_no_trial_is_pruned_between_rungs() -> None:
    search = Search()
    search.record.enqueue_first_points()
    for values in ((0.5, 0.9, 0.3), (0.4, 0.8, 0.25)):
        number = search.begin()
        assert [search.report(number, step, value) for step, value in enumerate(values, 1)] == [
            "CONTINUE"
        ] * 3
    last = search.begin()
    assert search.report(last, 1, 0.6) == "CONTINUE"
    assert search.report(last, 2, 0.0) == "CONTINUE"
    # At epoch 3 its 0.28 is compared with 0.3 and 0.25 of that epoch, not with earlier values.
    assert search.report(last, 3, 0.28) == "STOP"
    assert search.study.trials[last].intermediate_values == {1: 0.6, 2: 0.0, 3: 0.28}


def test_an_epoch_repeated_by_a_retry_changes_nothing() -> None:
    search = Search()
    first, second = search.begin(), search.begin()
    search.report(first, 1, 0.5)
    search.report(second, 1, 0.6)
    # If it were decided again, the first would be the worse of two.
    assert search.report(first, 1, 0.1) == "CONTINUE"
    assert search.study.trials[first].intermediate_values == {1: 0.5}
    assert search.record.values_at(1) == {first: 0.5, second: 0.6}


def test_a_finished_trial_is_complete_with_its_best_value() -> None:
    search = Search(training__max_epochs=3)
    number = search.begin()
    search.report(number, 1, 0.2)
    search.report(number, 2, 0.4)
    assert search.report(number, 3, 0.3, is_last=True) == "STOP"
    trial = search.study.trials[number]
    assert (trial.state, trial.value, trial.intermediate_values) == (
        TrialState.COMPLETE,
        0.4,
        {1: 0.2, 2: 0.4, 3: 0.3},
    )


def test_a_trial_that_ends_at_a_rung_is_complete() -> None:
    search = Search()
    search.report(search.begin(), 1, 0.5)
    worse = search.begin()
    # As with patience: if it had not finished, it would be pruned here.
    assert search.report(worse, 1, 0.1, is_last=True) == "STOP"
    assert search.study.trials[worse].state == TrialState.COMPLETE


def test_a_diverged_trial_is_pruned_with_a_violated_constraint() -> None:
    search = Search()
    number = search.begin()
    search.report(number, 1, 0.2)
    assert search.send(number, Diverged("train_loss, epoch 2: must be finite")) == "STOP"
    trial = search.study.trials[number]
    assert (trial.state, trial.intermediate_values, trial.constraints) == (
        TrialState.PRUNED,
        {1: 0.2},
        {"diverged": 1.0},
    )


def test_a_failure_is_stored_once_it_is_not_retried() -> None:
    search = Search()
    first, second = search.begin(), search.begin()
    search.fail(first, "RuntimeError: made to fail")
    assert search.record.is_running(first)
    search.searcher.on_trial_complete("tune-0", error=True)
    assert search.study.trials[first].state == TrialState.FAIL
    search.searcher.on_trial_complete("tune-1", {"done": True})
    assert search.record.is_running(second)


def test_a_trial_whose_worker_died_before_it_started_is_requeued() -> None:
    search = Search(resources__max_failures=1)
    first, other = search.begin(), search.begin()
    search.report(first, 1, 0.5)
    before = search.study.trials[first]
    search.fail(first, "ActorDiedError", status=Trial.PENDING)
    search.searcher.on_trial_complete("tune-0", error=True)
    # It is the next to start, unchanged, and resumes after its last report.
    assert search.begin() == first
    assert search.study.trials[first] == before
    assert search.report(first, 1, 0.1) == "CONTINUE"
    assert search.study.trials[first].intermediate_values == {1: 0.5}
    # Once, as max_failures says.
    search.fail(first, "ActorDiedError", status=Trial.PENDING)
    search.searcher.on_trial_complete("tune-2", error=True)
    assert search.study.trials[first].state == TrialState.FAIL
    assert search.record.is_running(other)


def test_the_searcher_ends_when_no_trial_can_be_requeued() -> None:
    search = Search(study__n_trials=2, training__max_epochs=1)
    first, second = search.begin(), search.begin()
    assert search.suggest() is None
    search.report(first, 1, 0.5, is_last=True)
    assert search.suggest() is None
    search.fail(second, "ActorDiedError", status=Trial.PENDING)
    assert search.begin() == second
    assert search.suggest() is None
    search.report(second, 1, 0.5, is_last=True)
    assert search.suggest() == Searcher.FINISHED
    assert Search(study__time_budget=60).begin() == 0


@pytest.mark.parametrize(
    ("gpu", "expected"), [(0.25, 0.5), (0.5, 1.0), (0.75, 1.0), (1.0, 1.0), (2.0, 2.0), (0.0, 0.0)]
)
def test_after_a_full_gpu_the_next_attempt_gets_twice_the_share(
    gpu: float, expected: float
) -> None:
    search = Search()
    full, other = "torch.OutOfMemoryError: CUDA out of memory.", "MemoryError"
    assert search.fail(search.begin(), full, gpu=gpu) == expected
    assert search.fail(search.begin(), other, full, gpu=gpu) == expected
    # The last attempt failed for another reason.
    assert search.fail(search.begin(), full, other, gpu=gpu) == gpu


def test_a_full_disk_ends_the_search_and_fails_no_trial() -> None:
    search = Search()
    number = search.begin()
    with pytest.raises(OSError, match="No space left on device") as raised:
        search.send(number, DiskFull("I/O error: No space left on device (os error 28)"))
    assert raised.value.errno == errno.ENOSPC
    assert search.record.is_running(number)


def test_the_warm_start_and_the_base_config_come_first() -> None:
    search = Search(model__dropout=0.25)
    search.record.enqueue_first_points()
    proposals = [search.suggest() for _ in range(3)]
    configs = [Config.model_validate_json(proposal["config"]) for proposal in proposals]
    assert [config.model.embedding_dim for config in configs[:2]] == [32, 16]
    assert [config.model.dropout for config in configs] == [0.25] * 3
    assert [proposal["number"] for proposal in proposals] == [0, 1, 2]
    assert [proposal["seed"] for proposal in proposals] == [
        trial_seed(0, number) for number in range(3)
    ]
