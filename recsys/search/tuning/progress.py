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
from rich.text import Text

from recsys.config.schema import Config
from recsys.console.verbosity import SECONDS_PER_LINE, is_quiet, is_verbose
from recsys.search.costs.predict import Predictor
from recsys.search.record.study_record import StudyRecord
from recsys.search.record.summaries import TrialSummary, best_trial, ranked
from recsys.search.tuning.epoch_times import EpochTimes
from recsys.search.tuning.messages import Report, message_of
from recsys.search.tuning.trial_texts import add_trial, metric_title, show_duration, trial_table

_SHOWN_TRIALS = 12


class SearchProgress(Callback):
    """Callback that shows a search on standard error and sums up its times.

    Attributes:
        started: Unix seconds of the first batch.
        ended: Unix seconds of the last result.
    """

    def __init__(self, record: StudyRecord, config: Config, predictor: Predictor) -> None:
        self.started: float | None = None
        self.ended: float | None = None
        self._record = record
        self._config = config
        self._predictor = predictor
        self._times = EpochTimes(record.n_segments)
        self._began = time.monotonic()
        self._n_before = record.n_finished  # trials that earlier processes finished
        self._console = Console(file=sys.stderr)
        self._live: Live | None = None
        self._values: dict[int, float] = {}  # last value by trial
        self._next_line = self._began + SECONDS_PER_LINE

    @property
    def busy_seconds(self) -> float:
        """Time that trials trained and ranked, summed over the trials."""
        return self._times.busy_seconds

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

    def on_trial_start(
        self, iteration: int, trials: list[Trial], trial: Trial, **_info: Any
    ) -> None:
        """Note that the trial's worker has started."""
        number = trial.config["number"]
        trial_config = self._record.config_of(number)
        self._times.start(number, self._predictor.predict(trial_config).mean(trial_config))

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
        number, message = trial.config["number"], message_of(result)
        if isinstance(message, Report):
            self.started = min(self.started or message.started, message.started)
            self._times.report(number, message)
            if (reported := message.metrics.get(self._config.metric_name)) is not None:
                self._values[number] = reported
            if is_verbose():
                epochs, value = self._last_report(self._record.summary(number))
                self._print(f"trial {number}: epoch {epochs}, {metric_title(self._config)} {value}")
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
            self._describe_running(s) for s in summaries if self._record.is_running(s.number)
        ]
        more = [f"{len(running) - _SHOWN_TRIALS} more"] if len(running) > _SHOWN_TRIALS else []
        shown = "; ".join(running[:_SHOWN_TRIALS] + more) or "no trial runs"
        self._print(f"{shown} | {self._headline(summaries)}")

    def _print(self, line: str) -> None:
        self._next_line = time.monotonic() + SECONDS_PER_LINE
        if not self._live and not is_quiet():
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _print_ending(self, trial: Trial) -> None:
        self._times.end(trial.config["number"])
        summaries = self._record.summaries()
        ended = next(s for s in summaries if s.number == trial.config["number"])
        if ended.state == "unfinished":
            return  # it will be retried
        epochs = f"{ended.epochs} epoch{'s' * (ended.epochs != 1)}"
        ending = f"trial {ended.number}: {ended.state} after {epochs}, {self._describe(ended)}"
        self._print(f"{ending} | {self._headline(summaries)}")

    def _describe(self, summary: TrialSummary) -> str:
        value, _ = summary.best_known
        shown = "no value" if value is None else f"{metric_title(self._config)} {value:.4f}"
        users = "" if summary.on_all_users is None else " on all users"
        return f"{self._name(summary)} {shown}{users}"

    def _name(self, summary: TrialSummary) -> str:
        name: str = summary.params.get("model.name", self._config.model.name)
        return name

    def _describe_running(self, summary: TrialSummary) -> str:
        """Return in words what a running trial does, for how long and with what value so far."""
        _, value = self._last_report(summary)
        since, left = self._times_of(summary)
        shown = f"{metric_title(self._config)} {value}" if value else "no value yet"
        facts = [f"in epoch {self._epoch_in_progress(summary)} for {since}", shown]
        facts += [f"up to {left} left"] if left else []
        doing = ", ".join(facts) if since else "starting"
        return f"trial {summary.number} ({self._name(summary)}): {doing}"

    def _times_of(self, summary: TrialSummary) -> tuple[str, str]:
        """Return how long the epoch in progress has run, and how long the trial may, as texts.

        The texts are empty before the worker has started.
        """
        number = summary.number
        elapsed, seconds = self._times.elapsed(number), self._times.epoch_seconds(number)
        left = self._times.seconds_left(number, self._last_step(summary), self._max_epochs(summary))
        since = "" if elapsed is None else show_duration(elapsed)
        if since and seconds is not None:
            since = f"{since} of about {show_duration(seconds)}"
        return since, "" if left is None else show_duration(left)

    def _epoch_in_progress(self, summary: TrialSummary) -> str:
        """Return the epoch that a running trial is in, such as `2/4`, or `2/4 (50%)`."""
        n_segments = self._record.n_segments
        n_whole, n_further_segments = divmod(self._last_step(summary), n_segments)
        share = f" ({n_further_segments / n_segments:.0%})" if n_further_segments else ""
        return f"{n_whole + 1}/{self._max_epochs(summary)}{share}"

    def _last_report(self, summary: TrialSummary) -> tuple[str, str]:
        """Return the epochs of a running trial, such as `1.5/4`, and its last value, as texts."""
        n_segments, step = self._record.n_segments, self._last_step(summary)
        value = self._values.get(summary.number, summary.value)
        epochs = f"{step / n_segments:.1f}" if step % n_segments else f"{step // n_segments}"
        shown = "" if value is None else f"{value:.4f}"
        return f"{epochs}/{self._max_epochs(summary)}", shown

    def _last_step(self, summary: TrialSummary) -> int:
        return self._times.steps.get(summary.number, summary.epochs * self._record.n_segments)

    def _max_epochs(self, summary: TrialSummary) -> int:
        n_epochs: int = summary.params.get("training.max_epochs", self._config.training.max_epochs)
        return n_epochs

    def _headline(self, summaries: list[TrialSummary]) -> str:
        best = best_trial(summaries)
        done = sum(s.state != "unfinished" for s in summaries)
        limit = self._config.study.trial_limit
        facts = [f"{done} trials" if limit is None else f"{done}/{limit} trials"]
        if best:
            facts.append(f"best {best.best_known[0]:.4f} (trial {best.number})")
        left = self._seconds_left(done)
        if left is not None:
            facts.append(f"about {show_duration(left)} left")
        return ", ".join(facts)

    def _seconds_left(self, done: int) -> float | None:
        """Estimate the time until the last trial or the end of the budget, None without either."""
        passed = time.monotonic() - self._began
        limit, budget = self._config.study.trial_limit, self._config.study.time_budget
        estimates = []
        if done > self._n_before and limit is not None:
            estimates.append(passed / (done - self._n_before) * max(0, limit - done))
        if budget is not None:
            estimates.append(max(0.0, budget - passed))
        return min(estimates, default=None)

    def _render(self) -> Group:
        summaries = self._record.summaries()
        running = [s for s in summaries if s.state == "unfinished"]
        ended = [s for s in ranked(summaries) if s.choosable and s.state != "unfinished"]
        table = trial_table(self._config, "in this epoch", "left")
        for summary in running:
            state = "running" if self._record.is_running(summary.number) else "waiting"
            add_trial(table, summary, state, *self._last_report(summary), *self._times_of(summary))
        for summary in ended[: max(3, _SHOWN_TRIALS - len(running))]:
            add_trial(table, summary, summary.state)
        return Group(Text(self._headline(summaries)), table)
