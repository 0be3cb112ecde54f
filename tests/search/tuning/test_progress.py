"""Output of a search while it runs, on a record in memory, with the progress called as by Tune."""

import io
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from recsys.console.verbosity import NORMAL, QUIET, VERBOSE, set_verbosity
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
        self.progress = SearchProgress(self.search.record, self.search.record._base)

    def report(self, number: int, step: int, value: float, *, is_last: bool = False) -> None:
        n_segments = self.search.record.n_segments
        self.search.report(number, step, value, is_last=is_last)
        metrics = {"train_seconds": 1.0, "rank_seconds": 1.0, "val_ndcg_at_10": value}
        report = Report(
            -(-step // n_segments), step, step % n_segments == 0, metrics, is_last, started=1.0
        )
        trial = cast(Any, SimpleNamespace(config={"number": number}))
        self.progress.on_trial_result(1, [], trial, {**as_result(report), "done": is_last})

    def idle(self) -> None:
        self.progress.on_step_end(1, [])


def test_a_line_at_least_every_half_minute(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Shown(n_segments=2)
    first, second = shown.search.begin(), shown.search.begin()
    shown.report(first, 1, 0.1)
    shown.report(first, 2, 0.3)
    shown.report(first, 3, 0.2)
    for seconds in (29, 30, 31, 59.5, 60):
        now[0] = 1000 + seconds
        shown.idle()
    # The last value, not the best; the first trial has trained half of its second epoch.
    running = (
        f"trial {first} at epoch 1.5/4, NDCG@10 (full) 0.2000; "
        f"trial {second} at epoch 0/4, no value yet"
    )
    headline = f"0/9 trials, best 0.3000 (trial {first})"
    assert capsys.readouterr().err.splitlines() == [f"{running} | {headline}"] * 2
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


def test_of_many_trials_some_are_named(
    now: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Shown()
    shown.search.n_slots = 20
    for _ in range(9):
        shown.search.begin()
    now[0] += 30
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "_SHOWN_TRIALS", 7)
        shown.idle()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("trial 0 at epoch 0/4, no value yet; trial 1 ")
    assert "; trial 6 at epoch 0/4, no value yet; 2 more | 0/9 trials" in line


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


def test_the_live_table(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Shown()
    first, second, left = (shown.search.begin() for _ in range(3))
    shown.search.record.requeue(left)
    shown.report(first, 1, 0.3)
    shown.report(first, 2, 0.1)
    shown.report(second, 3, 0.4, is_last=True)
    out = io.StringIO()
    Console(file=out, width=120).print(shown.progress._render())
    _, _, *rows = (line.split()[:4] for line in out.getvalue().splitlines())
    assert rows == [
        [str(first), "running", "2/4", "0.1000"],
        [str(left), "waiting", "0/4", rows[1][3]],
        [str(second), "complete", "3", "0.4000"],
    ]
    # It is shown on a terminal, without -v and -q.
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for level, is_live in ((NORMAL, True), (VERBOSE, False), (QUIET, False)):
        set_verbosity(level)
        shown.progress._console = Console(file=io.StringIO(), force_terminal=True)
        shown.progress.setup()
        assert (shown.progress._live is not None) == is_live
        shown.progress.close()
