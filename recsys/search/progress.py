"""How a search is shown while it runs: a live table on a terminal, plain lines without one.

Listens to Tune as a callback and reads the record of the study; it also keeps the time that trials spent working.
"""

import sys
import time
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from recsys.config import Config
from recsys.search.record import StudyRecord
from recsys.search.summaries import TrialSummary, best_trial, ranked
from recsys.training.evaluation import protocol_name

_SHOWN_TRIALS = 12


class SearchProgress(Callback):
    """Shows the search on standard error and sums up its times.

    `started`, `ended`: Unix seconds of the first batch and of the last trial's end.
    """

    def __init__(self, record: StudyRecord, config: Config) -> None:
        self.started: float | None = None
        self.ended: float | None = None
        self._busy: dict[tuple[int, int], float] = {}
        self._record = record
        self._config = config
        self._began = time.monotonic()
        self._console = Console(file=sys.stderr)
        self._live: Live | None = None

    @property
    def busy_seconds(self) -> float:
        """Training and ranking, summed over the trials."""
        return sum(self._busy.values())

    def setup(self, *_args: Any, **_kwargs: Any) -> None:
        """Begin the live table where there is a terminal."""
        if self._console.is_terminal:
            self._live = Live(console=self._console, refresh_per_second=4, get_renderable=self._render, transient=True)
            self._live.start()

    def close(self) -> None:
        """End the live table."""
        if self._live:
            self._live.stop()
            self._live = None

    def on_trial_result(self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_info: Any) -> None:  # noqa: ARG002
        """Keep the epoch's times; where there is no terminal, tell of a trial that this result ended in a line."""
        self.ended = time.time()
        if "metrics" in result:
            self.started = min(self.started or result["started"], result["started"])
            # A part of an epoch tells the time of the epoch so far.
            seconds = result["metrics"]["train_seconds"] + result["metrics"]["rank_seconds"]
            self._busy[trial.config["number"], result["epoch"]] = seconds
        if result.get("done"):
            self._tell(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_info: Any) -> None:  # noqa: ARG002
        """Tell of the trial in a line where there is no terminal."""
        self._tell(trial)

    def _tell(self, trial: Trial) -> None:
        if self._live:
            return
        summaries = self._record.summaries()
        ended = next(s for s in summaries if s.number == trial.config["number"])
        if ended.state == "unfinished":
            return  # it is tried again
        epochs = f"{ended.epochs} epoch{'s' * (ended.epochs != 1)}"
        told = f"trial {ended.number}: {ended.state} after {epochs}, {self._describe(ended)}"
        line = f"{told} | {self._headline(summaries)}"
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _describe(self, summary: TrialSummary) -> str:
        value = "no value" if summary.value is None else f"{metric_title(self._config)} {summary.value:.4f}"
        name = summary.params.get("model.name", self._config.model.name)
        return f"{name} {value}"

    def _headline(self, summaries: list[TrialSummary]) -> str:
        best = best_trial(summaries)
        done = sum(s.state != "unfinished" for s in summaries)
        limit = self._config.study.trial_limit
        parts = [f"{done} trials" if limit is None else f"{done}/{limit} trials"]
        if best:
            parts.append(f"best {best.value:.4f} (trial {best.number})")
        left = self._seconds_left(done)
        if left is not None:
            parts.append(f"about {int(left) // 60}:{int(left) % 60:02d} left")
        return ", ".join(parts)

    def _seconds_left(self, done: int) -> float | None:
        passed = time.monotonic() - self._began
        limit, budget = self._config.study.trial_limit, self._config.study.time_budget
        by_trials = passed / done * max(0, limit - done) if done and limit is not None else None
        limits = [
            seconds for seconds in (by_trials, None if budget is None else max(0.0, budget - passed)) if seconds is not None
        ]
        return min(limits, default=None)

    def _render(self) -> Group:
        summaries = self._record.summaries()
        running = [s for s in summaries if s.state == "unfinished"]
        ended = [s for s in ranked(summaries) if s.choosable and s.state != "unfinished"]
        table = trial_table(self._config)
        for summary in running + ended[: max(3, _SHOWN_TRIALS - len(running))]:
            add_trial(table, summary, "running" if summary.state == "unfinished" else summary.state)
        return Group(Text(self._headline(summaries)), table)


def trial_table(config: Config) -> Table:
    """An empty table of trials, for `add_trial`."""
    return Table("trial", "state", "epochs", metric_title(config), "parameters", box=None, header_style="bold")


def add_trial(table: Table, trial: TrialSummary, state: str) -> None:
    """A trial as a row, its state told as `state`."""
    value = "" if trial.value is None else f"{trial.value:.4f}"
    parameters = Text(show_params(trial.params), overflow="ellipsis", no_wrap=True)
    table.add_row(str(trial.number), state, str(trial.epochs), value, parameters)


def metric_title(config: Config) -> str:
    """The searched metric as prose has it, with its protocol, such as `NDCG@10 (full)`."""
    titles = {"ndcg": "NDCG", "hit_rate": "HR", "mrr": "MRR", "recall": "Recall"}
    return f"{titles[config.study.metric]}@{config.evaluation.k[0]} ({protocol_name(config)})"


def show_params(params: dict[str, Any]) -> str:
    """Parameters in one line, by the last part of their paths."""
    shown = {path.partition(".")[2]: value for path, value in params.items()}
    return " ".join(f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in shown.items())
