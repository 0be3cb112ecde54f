"""Plots of docs/benchmarks.md: one figure per subject, drawn from its rows."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.measure import Row

# Text is stored as text, and equal figures give equal files.
matplotlib.rcParams.update(
    {
        "svg.fonttype": "none",
        "svg.hashsalt": "recsys",
        "font.size": 9,
        "axes.grid": True,
        "grid.alpha": 0.3,
    }
)

STYLES = ("-", "--", ":")


def save_plot(plot: Figure, path: Path) -> None:
    """Write a figure as SVG."""
    path.parent.mkdir(exist_ok=True)
    plot.savefig(path, metadata={"Date": None})


def plot_by_batch(rows: Sequence[Row]) -> Figure:
    """Plot samples per second by batch size, with a panel for each size of the data."""
    rows = [row for row in rows if "batch" in row.at]
    sizes = sorted({float(row.at["users and items"]) for row in rows})
    plot, panels = _panels(len(sizes))
    for panel, size in zip(panels, sizes, strict=True):
        shown = [row for row in rows if row.at["users and items"] == size]
        _draw_lines(panel, shown, "batch", list(shown[0].values), "model")
        panel.set(title=f"{size:,.0f} users and items", ylabel="M samples/s", yscale="log")
        panel.yaxis.set_major_formatter("{x:g}")
        panel.yaxis.set_minor_formatter("{x:g}")
    return plot


def plot_by_size(axis: str, shown: Mapping[str, Sequence[str]], rows: Sequence[Row]) -> Figure:
    """Plot quantities along `axis`; `shown` maps each panel's title to its quantities."""
    rows = [row for row in rows if axis in row.at]
    plot, panels = _panels(len(shown))
    for panel, (title, names) in zip(panels, shown.items(), strict=True):
        _draw_lines(panel, rows, axis, names, None)
        panel.set(title=title, ylim=(0, None) if title.endswith("MB") else None)
    return plot


def plot_bars(unit: str, rows: Sequence[Row]) -> Figure:
    """Plot a bar for each quantity of a unit in each case, with minimum and maximum."""
    names = [name for name in rows[0].values if name.endswith(unit)]
    plot = Figure(figsize=(9, 0.8 + 0.24 * len(rows) * len(names)), layout="constrained")
    panel = plot.subplots()
    labels = []
    for index, row in enumerate(row for row in rows if names[0] in row.values):
        for offset, name in enumerate(names):
            value, height = row.values[name], -(index * (len(names) + 0.7) + offset)
            around = [[value.median - value.minimum], [value.maximum - value.median]]
            label = name.removesuffix(unit) if index == 0 else None
            panel.barh(
                height, value.median, height=0.9, color=f"C{offset}", xerr=around, label=label
            )
        labels.append((height + (len(names) - 1) / 2, row.case))
    panel.set_yticks([height for height, _ in labels], [case for _, case in labels])
    panel.set_xlabel(unit.lstrip(", "))
    if len(names) > 1:
        panel.legend()
    return plot


def plot_case(unit: str, rows: Sequence[Row]) -> Figure:
    """Plot a bar for each quantity of a unit of a single case."""
    (row,) = rows
    values = {
        name.removesuffix(unit): value.median
        for name, value in row.values.items()
        if name.endswith(unit)
    }
    plot = Figure(figsize=(9, 0.8 + 0.3 * len(values)), layout="constrained")
    panel = plot.subplots()
    panel.barh(list(values)[::-1], list(values.values())[::-1])
    panel.set(title=row.case, xlabel=unit.lstrip(", "))
    return plot


PLOTS: dict[str, Callable[[Sequence[Row]], Figure]] = {
    "training": plot_by_batch,
    "ranking": partial(plot_bars, ", users/s"),
    "sampling": partial(plot_bars, ", M/s"),
    "preprocessing": partial(
        plot_by_size,
        "ratings",
        {"seconds": ["seconds", "polars, seconds"], "driver's peak, MB": ["driver MB"]},
    ),
    "scale": partial(
        plot_by_size,
        "trials",
        {"seconds per trial": ["seconds per trial"], "driver's peak, MB": ["driver MB"]},
    ),
    "large": partial(plot_case, ", seconds"),
}


def _panels(n: int) -> tuple[Figure, list[Axes]]:
    plot = Figure(figsize=(9, 3.6), layout="constrained")
    return plot, list(plot.subplots(1, n, squeeze=False)[0])


def _draw_lines(
    panel: Axes, rows: Sequence[Row], axis: str, names: Sequence[str], series: str | None
) -> None:
    """Draw a line for each quantity, and for each value of `series` unless it is None."""
    found = sorted({str(row.at[series]) for row in rows}) if series else [""]
    for color, wanted in enumerate(found):
        points = sorted(
            (row for row in rows if not series or row.at[series] == wanted),
            key=lambda row: float(row.at[axis]),
        )
        for number, (name, style) in enumerate(zip(names, STYLES, strict=False)):
            values = [row.values[name] for row in points]
            around = [
                [v.median - v.minimum for v in values],
                [v.maximum - v.median for v in values],
            ]
            label = f"{wanted} {name.partition(',')[0]}".strip()
            panel.errorbar(
                [float(row.at[axis]) for row in points],
                [v.median for v in values],
                around,
                fmt=f"o{style}",
                color=f"C{color if series else number}",
                label=label,
                markersize=3,
            )
    measured = sorted({float(row.at[axis]) for row in rows})
    panel.set(xscale="log", xlabel=axis)
    panel.set_xticks(measured, [f"{value:,.0f}" for value in measured], minor=False)
    panel.set_xticks([], minor=True)
    panel.legend(fontsize=7)
