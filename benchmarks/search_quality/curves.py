"""Anytime curves of a comparison: values by data set, and mean regret over the data sets."""

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.plots import save_plot
from benchmarks.search_quality.outcome import Outcome
from benchmarks.search_quality.regret import FloatArray, Scale, mean_regret, regrets_of
from benchmarks.search_quality.searches import SYSTEMS, WHOLE

N_TIMES = 100
COLUMNS = 3


def plot_values(outcomes: Sequence[Outcome], minutes: float, path: Path) -> None:
    """Plot the value on all validation users by time, with one budget: a panel per data set.

    A line is the median of the seeds, from the time on at which most of them have a value; the
    whole's band is their range.
    """
    outcomes = [outcome for outcome in outcomes if outcome.search.minutes == minutes]
    names = sorted({outcome.search.data for outcome in outcomes})
    figure, panels = _grid(len(names))
    for name, panel in zip(names, panels, strict=True):
        shown = [outcome for outcome in outcomes if outcome.search.data == name]
        times = _times(shown)
        for system, own in _by_system(shown).items():
            values = np.array([[_or_nothing(o.value_at(t)) for t in times] for o in own])
            median, low, high = (
                _finite(line(values, axis=0)) for line in (np.median, np.min, np.max)
            )
            panel.plot(times / 60, median, **_style(system))
            if system == WHOLE:
                panel.fill_between(times / 60, low, high, color="C0", alpha=0.15, linewidth=0)
        panel.set(title=name)
    panels[0].set(ylabel="validation metric, all users")
    _finish(figure, panels, path)


def plot_regrets(outcomes: Sequence[Outcome], scales: Mapping[str, Scale], path: Path) -> None:
    """Plot the mean normalised regret by time: a panel per budget."""
    budgets = sorted({outcome.search.minutes for outcome in outcomes})
    figure, panels = _grid(len(budgets))
    for minutes, panel in zip(budgets, panels, strict=True):
        shown = [outcome for outcome in outcomes if outcome.search.minutes == minutes]
        times = _times(shown)
        for system, own in _by_system(shown).items():
            regrets = [mean_regret(regrets_of(own, scales, seconds)) for seconds in times]
            panel.plot(times / 60, regrets, **_style(system))
        panel.set(title=f"budget of {minutes:g} min", yscale="log")
    panels[0].set(ylabel="mean normalised regret")
    _finish(figure, panels, path)


def _grid(n_panels: int) -> tuple[Figure, list[Axes]]:
    n_columns = min(COLUMNS, n_panels)
    n_rows = ceil(n_panels / n_columns)
    figure = Figure(figsize=(1.5 + 3.2 * n_columns, 0.8 + 2.6 * n_rows), layout="constrained")
    panels = figure.subplots(n_rows, n_columns, squeeze=False).ravel().tolist()
    for panel in panels[n_panels:]:
        panel.set_visible(False)
    return figure, panels[:n_panels]


def _finish(figure: Figure, panels: Sequence[Axes], path: Path) -> None:
    for panel in panels[-COLUMNS:]:
        panel.set(xlabel="minutes since the command's start")
    found = [panel.get_legend_handles_labels() for panel in panels]
    by_label = {
        label: line for lines, labels in found for line, label in zip(lines, labels, strict=True)
    }
    labels = [system for system in SYSTEMS if system in by_label]
    lines = [by_label[label] for label in labels]
    n_columns = min(COLUMNS, len(panels))
    figure.legend(lines, labels, loc="outside lower center", ncols=n_columns)
    save_plot(figure, path)


def _style(system: str) -> dict[str, Any]:
    """Return a system's own colour and label."""
    color = f"C{list(SYSTEMS).index(system)}"
    return {"color": color, "label": system, "linewidth": 2 if system == WHOLE else 1}


def _or_nothing(value: float | None) -> float:
    return -np.inf if value is None else value


def _finite(values: FloatArray) -> FloatArray:
    """Return the values with NaN, which is not drawn, in place of infinity."""
    return np.where(np.isfinite(values), values, np.nan)


def _times(outcomes: Sequence[Outcome]) -> FloatArray:
    return np.linspace(0, max(outcome.searched.seconds for outcome in outcomes), N_TIMES)


def _by_system(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    return {
        system: own
        for system in SYSTEMS
        if (own := [outcome for outcome in outcomes if outcome.search.system == system])
    }
