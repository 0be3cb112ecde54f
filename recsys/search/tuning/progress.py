"""Progress of a search on standard error: a live table on a terminal, or plain lines.

It shows lines if standard error is no terminal or with -v, and nothing with -q. The callback
reads Tune's results and the record; it also sums up the time that trials trained and ranked.
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

from recsys.config.components import METRICS
from recsys.config.schema import Config
from recsys.console.verbosity import is_quiet, is_verbose
from recsys.evaluation.evaluate import protocol_name
from recsys.search.record.study_record import StudyRecord
from recsys.search.record.summaries import TrialSummary, best_trial, ranked
from recsys.search.tuning.messages import Report, message_of

_SHOWN_TRIALS = 12
_SECONDS_PER_LINE = 30.0
"""Longest time between two lines."""


class SearchProgress(Callback):
    """Callback that shows a search on standard error and sums up its times.

    Attributes:
        started: Unix seconds of the first batch.
        ended: Unix seconds of the last result.
    """

    def __init__(self, record: StudyRecord, config: Config) -> None:
        self.started: float | None = None
        self.ended: float | None = None
        self._busy: dict[tuple[int, int], float] = {}  # seconds by trial and epoch
        self._record = record
        self._config = config
        self._began = time.monotonic()
        self._console = Console(file=sys.stderr)
        self._live: Live | None = None
        self._last: dict[int, tuple[int, float]] = {}  # last step and its value, by trial
        self._next_line = self._began + _SECONDS_PER_LINE

    @property
    def busy_seconds(self) -> float:
        """Time that trials trained and ranked, summed over the trials."""
        return sum(self._busy.values())

    def setup(self, *_args: Any, **_kwargs: Any) -> None:
        """Start the live table if standard error is a terminal."""
        if self._console.is_terminal and not is_verbose() and not is_quiet():
            self._live = Live(
                console=self._console,
                refresh_per_second=4,
                get_renderable=self._render,
                transient=True,
            )
            self._live.start()

    def close(self) -> None:
        """Stop the live table."""
        if self._live:
            self._live.stop()
            self._live = None

    def on_trial_result(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        result: dict[str, Any],
        **_info: Any,
    ) -> None:
        """Note the times and the value; print a line if the result ended the trial."""
        self.ended = time.time()
        message = message_of(result)
        if isinstance(message, Report):
            self.started = min(self.started or message.started, message.started)
            number, metrics = trial.config["number"], message.metrics
            # A segment reports the time of its epoch so far.
            seconds = metrics["train_seconds"] + metrics["rank_seconds"]
            self._busy[number, message.epoch] = seconds
            self._last[number] = message.step, metrics[self._config.metric_name]
            if is_verbose():
                self._print(
                    f"trial {number}: {self._describe_running(self._record.summary(number))}"
                )
        if result.get("done"):
            self._print_ending(trial)

    def on_trial_error(
        self,
        iteration: int,
        trials: list[Trial],
        trial: Trial,
        **_info: Any,
    ) -> None:
        """Print a line for the trial."""
        self._print_ending(trial)

    def on_step_end(self, iteration: int, trials: list[Trial], **_info: Any) -> None:
        """Print the running trials if the last line is old; Tune calls this often."""
        if time.monotonic() < self._next_line:
            return
        summaries = self._record.summaries()
        running = [
            f"trial {s.number} at {self._describe_running(s)}"
            for s in summaries
            if self._record.is_running(s.number)
        ]
        more = [f"{len(running) - _SHOWN_TRIALS} more"] if len(running) > _SHOWN_TRIALS else []
        shown = "; ".join(running[:_SHOWN_TRIALS] + more) or "no trial runs"
        self._print(f"{shown} | {self._headline(summaries)}")

    def _print(self, line: str) -> None:
        self._next_line = time.monotonic() + _SECONDS_PER_LINE
        if not self._live and not is_quiet():
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _print_ending(self, trial: Trial) -> None:
        summaries = self._record.summaries()
        ended = next(s for s in summaries if s.number == trial.config["number"])
        if ended.state == "unfinished":
            return  # it will be retried
        epochs = f"{ended.epochs} epoch{'s' * (ended.epochs != 1)}"
        ending = f"trial {ended.number}: {ended.state} after {epochs}, {self._describe(ended)}"
        self._print(f"{ending} | {self._headline(summaries)}")

    def _describe(self, summary: TrialSummary) -> str:
        value = "no value"
        if summary.value is not None:
            value = f"{metric_title(self._config)} {summary.value:.4f}"
        name = summary.params.get("model.name", self._config.model.name)
        return f"{name} {value}"

    def _describe_running(self, summary: TrialSummary) -> str:
        epochs, value = self._last_report(summary)
        shown = f"{metric_title(self._config)} {value}" if value else "no value yet"
        return f"epoch {epochs}, {shown}"

    def _last_report(self, summary: TrialSummary) -> tuple[str, str]:
        """Return the epochs of a running trial, such as `1.5/4`, and its last value, as texts."""
        n_segments = self._record.n_segments
        last = summary.epochs * n_segments, summary.value
        step, value = self._last.get(summary.number, last)
        epochs = f"{step / n_segments:.1f}" if step % n_segments else f"{step // n_segments}"
        most = summary.params.get("training.max_epochs", self._config.training.max_epochs)
        return f"{epochs}/{most}", "" if value is None else f"{value:.4f}"

    def _headline(self, summaries: list[TrialSummary]) -> str:
        best = best_trial(summaries)
        done = sum(s.state != "unfinished" for s in summaries)
        limit = self._config.study.trial_limit
        facts = [f"{done} trials" if limit is None else f"{done}/{limit} trials"]
        if best:
            facts.append(f"best {best.value:.4f} (trial {best.number})")
        left = self._seconds_left(done)
        if left is not None:
            facts.append(f"about {int(left) // 60}:{int(left) % 60:02d} left")
        return ", ".join(facts)

    def _seconds_left(self, done: int) -> float | None:
        """Estimate the time until the last trial or the end of the budget, None without either."""
        passed = time.monotonic() - self._began
        limit, budget = self._config.study.trial_limit, self._config.study.time_budget
        estimates = []
        if done and limit is not None:
            estimates.append(passed / done * max(0, limit - done))
        if budget is not None:
            estimates.append(max(0.0, budget - passed))
        return min(estimates, default=None)

    def _render(self) -> Group:
        summaries = self._record.summaries()
        running = [s for s in summaries if s.state == "unfinished"]
        ended = [s for s in ranked(summaries) if s.choosable and s.state != "unfinished"]
        table = trial_table(self._config)
        for summary in running:
            state = "running" if self._record.is_running(summary.number) else "waiting"
            add_trial(table, summary, state, self._last_report(summary))
        for summary in ended[: max(3, _SHOWN_TRIALS - len(running))]:
            add_trial(table, summary, summary.state)
        return Group(Text(self._headline(summaries)), table)


def trial_table(config: Config) -> Table:
    """Return an empty table of trials, for `add_trial`."""
    return Table(
        "trial",
        "state",
        "epochs",
        metric_title(config),
        "parameters",
        box=None,
        header_style="bold",
    )


def add_trial(
    table: Table, trial: TrialSummary, state: str, reached: tuple[str, str] | None = None
) -> None:
    """Add a trial as a row; `reached` has epochs and value as texts, else its last and best."""
    best = "" if trial.value is None else f"{trial.value:.4f}"
    epochs, value = reached or (str(trial.epochs), best)
    parameters = Text(show_params(trial.params), overflow="ellipsis", no_wrap=True)
    table.add_row(str(trial.number), state, epochs, value, parameters)


def metric_title(config: Config) -> str:
    """Return the searched metric as shown to the user, such as `NDCG@10 (full)`."""
    return (
        f"{METRICS[config.study.metric].title}@{config.evaluation.k[0]} ({protocol_name(config)})"
    )


def show_params(params: dict[str, Any]) -> str:
    """Return parameters in one line, named by their paths without the section."""
    shown = {path.partition(".")[2]: value for path, value in params.items()}
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in shown.items()
    )
