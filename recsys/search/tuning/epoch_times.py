"""Times of the epochs of running trials, which `progress` shows.

A worker sends nothing within an epoch or a segment of it, so what is known meanwhile is since when
the epoch runs, and how long this trial's epochs have taken.
"""

import time

from recsys.search.tuning.messages import Report


class EpochTimes:
    """Clock of the epochs of all trials of one run of a search; an epoch has `n_segments` steps.

    `steps`: the last step of each trial that has reported one.
    """

    def __init__(self, n_segments: int) -> None:
        self._n_segments = n_segments
        self._began: dict[int, float] = {}  # by running trial, when its epoch began
        self._expected: dict[int, float] = {}  # seconds of an epoch by trial
        self._busy: dict[int, dict[int, float]] = {}  # seconds by trial and epoch
        self.steps: dict[int, int] = {}

    @property
    def busy_seconds(self) -> float:
        """Time that trials trained and ranked, summed over the trials."""
        return sum(sum(epochs.values()) for epochs in self._busy.values())

    def start(self, number: int, expected: float) -> None:
        """Note that a trial starts now, whose epochs are expected to take some seconds."""
        self._began[number] = time.monotonic()
        self._expected[number] = expected

    def report(self, number: int, report: Report) -> None:
        """Note a step of a trial; after a whole epoch the next one starts."""
        # A segment reports the time of its epoch so far.
        seconds = report.metrics["train_seconds"] + report.metrics.get("rank_seconds", 0.0)
        self._busy.setdefault(number, {})[report.epoch] = seconds + report.rank_all_seconds
        self.steps[number] = report.step
        if report.is_whole_epoch:
            self._began[number] = time.monotonic()

    def end(self, number: int) -> None:
        """Note that a trial does not run any more."""
        self._began.pop(number, None)

    def elapsed(self, number: int) -> float | None:
        """Return the seconds since a trial's epoch began, None if its worker has not started."""
        began = self._began.get(number)
        return None if began is None else time.monotonic() - began

    def epoch_seconds(self, number: int) -> float | None:
        """Return the mean seconds of a trial's epoch, before its first report the expected ones.

        None if its worker has not started.
        """
        busy = self._busy.get(number)
        if busy is None:
            return self._expected.get(number)
        # Of an epoch that this process resumed, the report has the time from its beginning.
        n_steps = self.steps[number] - (min(busy) - 1) * self._n_segments
        return sum(busy.values()) / n_steps * self._n_segments

    def seconds_left(self, number: int, step: int, n_epochs: int) -> float | None:
        """Return about how long a trial still runs after a step if it trains `n_epochs` in all."""
        seconds, elapsed = self.epoch_seconds(number), self.elapsed(number)
        if seconds is None or elapsed is None:
            return None
        n_whole = step // self._n_segments
        n_after = max(0, n_epochs - n_whole - 1)
        return n_after * seconds + max(0.0, seconds - elapsed)
