"""Output of a search while it runs, on a record in memory, with the progress called as by Tune."""

import io
import re
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from recsys.config.schema import Config
from recsys.console.verbosity import NORMAL, QUIET, VERBOSE, set_verbosity
from recsys.search.costs.work import EpochSeconds
from recsys.search.tuning import progress
from recsys.search.tuning.messages import Report, as_result
from recsys.search.tuning.progress import SearchProgress
from tests.search.tuning.test_searcher import Search


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    set_verbosity(NORMAL)


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test sets."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


class SixSeconds:
    """Prediction of an epoch of 6 s."""

    is_measured = True

    def predict(self, _config: Config) -> EpochSeconds:
        return EpochSeconds(5.0, 1.0)


class Shown:
    """A search with trials of 4 epochs, and its progress."""

    def __init__(self, n_segments: int = 1) -> None:
        self.search = Search(
            n_segments,
            training__max_epochs=4,
            study__n_trials=9,
            study__grace_period=9,
            data__split_seed=1,
            model__name="gmf",
        )
        self.progress = SearchProgress(self.search.record, self.search.record.base, SixSeconds())

    def begin(self) -> int:
        """Start a trial, as Tune does once its worker is ready."""
        number = self.search.begin()
        self.progress.on_trial_start(1, [], self.trial(number))
        return number

    def trial(self, number: int) -> Any:
        return cast(Any, SimpleNamespace(config={"number": number}))

    def report(self, number: int, step: int, value: float, *, is_last: bool = False) -> None:
        """Report a step; an epoch takes 6 s."""
        n_segments = self.search.record.n_segments
        self.search.report(number, step, value, is_last=is_last)
        seconds = 6.0 * ((step - 1) % n_segments + 1) / n_segments
        metrics = {
            "train_seconds": seconds - 1.0,
            "rank_seconds": 1.0,
            "val_ndcg_at_10": value,
        }
        report = Report(
            -(-step // n_segments), step, step % n_segments == 0, metrics, is_last, started=1.0
        )
        result = {**as_result(report), "done": is_last}
        self.progress.on_trial_result(1, [], self.trial(number), result)

    def idle(self) -> None:
        self.progress.on_step_end(1, [])


def test_an_epoch_that_is_not_ranked_keeps_the_value_of_the_last_one(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Shown()
    number = shown.begin()
    shown.report(number, 1, 0.3)
    metrics = {"train_seconds": 2.0}
    report = Report(2, 2, True, metrics, is_last=False, started=1.0)
    trial = cast(Any, SimpleNamespace(config={"number": number}))
    shown.progress.on_trial_result(1, [], trial, as_result(report))
    now[0] += 31
    shown.idle()
    line = capsys.readouterr().err
    assert "in epoch 3/4" in line
    assert "NDCG@10 (full) 0.3000" in line


def test_a_line_at_least_every_half_minute(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Shown(n_segments=2)
    first, second = shown.begin(), shown.search.begin()
    for step, value in ((1, 0.1), (2, 0.3), (3, 0.2)):
        now[0] += 5
        shown.report(first, step, value)
    for seconds in (29, 30, 31, 59.5, 60):
        now[0] = 1000 + seconds
        shown.idle()
    # The last value, not the best. The first trial began its second epoch at 10 s; its three steps
    # took 3, 6 and 3 s from the beginning of their epochs: 6 s an epoch, of which two follow.
    lines = [
        f"trial {first} (gmf): in epoch 2/4 (50%) for {since} of about 0:06, NDCG@10 (full) 0.2000,"
        f" up to 0:12 left; trial {second} (gmf): starting | 0/9 trials, best 0.3000 (trial 0)"
        for since in ("0:20", "0:50")
    ]
    assert capsys.readouterr().err.splitlines() == lines
    # The line of a trial's end counts too.
    now[0] += 20
    shown.report(second, 2, 0.4, is_last=True)
    now[0] += 29
    shown.idle()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        f"trial {second}: complete after 1 epoch, gmf NDCG@10 (full) 0.4000 | "
        "1/9 trials, best 0.4000"
    )


def test_an_epoch_is_shown_before_its_first_report(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Shown()
    number = shown.begin()
    now[0] += 75
    shown.idle()
    shown.report(number, 1, 0.25)
    now[0] += 3600
    shown.idle()
    # A report comes from an epoch of 6 s; three follow.
    assert capsys.readouterr().err.splitlines() == [
        f"trial {number} (gmf): in epoch 1/4 for 1:15 of about 0:06, no value yet, "
        "up to 0:18 left | 0/9 trials",
        f"trial {number} (gmf): in epoch 2/4 for 1:00:00 of about 0:06, NDCG@10 (full) 0.2500, "
        f"up to 0:12 left | 0/9 trials, best 0.2500 (trial {number})",
    ]


def test_a_trial_that_is_retried_starts_again(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Shown()
    number = shown.begin()
    shown.report(number, 1, 0.25)
    shown.progress.on_trial_error(1, [], shown.trial(number))
    now[0] += 30
    shown.idle()
    shown.progress.on_trial_start(1, [], shown.trial(number))
    now[0] += 40
    shown.idle()
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"trial {number} (gmf): starting | ")
    assert second.startswith(f"trial {number} (gmf): in epoch 2/4 for 0:40 of about 0:06, NDCG@10")


def test_of_many_trials_some_are_named(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Shown()
    shown.search.n_slots = 20
    for _ in range(9):
        shown.begin()
    now[0] += 30
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "_SHOWN_TRIALS", 7)
        shown.idle()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "trial 0 (gmf): in epoch 1/4 for 0:30 of about 0:06, no value yet, up to 0:18 left; "
        "trial 1 "
    )
    assert "no value yet, up to 0:18 left; 2 more | 0/9 trials" in line


def test_verbose_and_quiet(now: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    for level in (VERBOSE, QUIET):
        set_verbosity(level)
        shown = Shown()
        number = shown.search.begin()
        shown.report(number, 1, 0.1)
        shown.report(number, 2, 0.2, is_last=True)
        now[0] += 60
        shown.idle()
        lines = capsys.readouterr().err.splitlines()
        if level == QUIET:
            assert lines == []
            continue
        assert lines[:2] == [
            f"trial {number}: epoch {epoch}/4, NDCG@10 (full) 0.{epoch}000" for epoch in (1, 2)
        ]
        assert lines[2].startswith(f"trial {number}: complete after 2 epochs, ")
        assert lines[3].startswith("no trial runs | 1/9 trials")


def test_the_live_table(now: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown()
    first, second, left = (shown.begin() for _ in range(3))
    shown.search.record.requeue(left)
    shown.progress.on_trial_error(1, [], shown.trial(left))
    shown.report(first, 1, 0.3)
    shown.report(first, 2, 0.1)
    shown.report(second, 3, 0.4, is_last=True)
    now[0] += 2
    out = io.StringIO()
    Console(file=out, width=140).print(shown.progress._render())
    _, header, *rows = (re.split(r"  +", line.strip()) for line in out.getvalue().splitlines())
    assert header[:6] == ["trial", "state", "epochs", "NDCG@10 (full)", "in this epoch", "left"]
    params = [
        f"embedding_dim={summary.params['model.embedding_dim']}"
        for summary in shown.search.record.summaries()
    ]
    assert rows == [
        [str(first), "running", "2/4", "0.1000", "0:02 of about 0:06", "0:10", params[first]],
        [str(left), "waiting", "0/4", params[left]],
        [str(second), "complete", "3", "0.4000", params[second]],
    ]
    # It is shown on a terminal, without -v and -q.
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for level, is_live in ((NORMAL, True), (VERBOSE, False), (QUIET, False)):
        set_verbosity(level)
        shown.progress._console = Console(file=io.StringIO(), force_terminal=True)
        shown.progress.setup()
        assert (shown.progress._live is not None) == is_live
        shown.progress.close()
