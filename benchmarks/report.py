"""Page of results, docs/benchmarks.md, written from the subjects' measurements alone."""

import ast
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from benchmarks.machine import describe_machine
from benchmarks.measure import Result, Row, figure
from benchmarks.plots import PLOTS, save_plot

SIZE_AXES = {
    "training": "users and items",
    "ranking": "items",
    "sampling": "interactions",
    "preprocessing": "ratings",
    "scale": "trials",
}
"""Quantity that is each subject's size."""

HEAD = """# Benchmarks

`make bench` writes this page; a change by hand is lost with the next run. Each subject is one file
in [benchmarks](../benchmarks), which `python -m benchmarks.SUBJECT` runs alone.
[benchmarks/peers](../benchmarks/peers) measures other projects.

A figure is the median of repeats, with the least and the greatest in brackets; a figure without
brackets was measured once. Each subject has a limit beside it, such as a bare loop or a matrix
product. Subject and limit are measured in turns in the same run, so that disturbances of the
machine affect both, and a ratio is computed turn by turn. "ratio to the bare loop" is the subject's
speed divided by the bare loop's. MB are millions of bytes.
"""


def write_report(results: Sequence[Result], docs: Path) -> None:
    """Write `docs`/benchmarks.md and its plots."""
    sections = [
        HEAD,
        table(["measured on", ""], [[name, text] for name, text in describe_machine().items()]),
    ]
    sections += ["## Targets\n", _targets(results), "## Cost by size\n", _cost_by_size(results)]
    for result in results:
        sections += [f"## {result.subject.capitalize()}\n", _intro(result.subject)]
        if result.error:
            sections.append(f"No figures: the benchmark {result.error}.\n")
            continue
        if result.subject in PLOTS:
            save_plot(
                PLOTS[result.subject](result.rows), docs / "benchmarks" / f"{result.subject}.svg"
            )
            sections.append(f"![{result.subject}](benchmarks/{result.subject}.svg)\n")
        sections += _tables(result.rows)
    (docs / "benchmarks.md").write_text("\n".join(sections), encoding="utf-8")


def summary_lines(results: Sequence[Result]) -> Iterator[str]:
    """Yield a line for each failed subject and each row with targets, then the count."""
    n_held = n_rows = 0
    for result in results:
        if result.error:
            yield f"FAILED {result.subject} {result.error}"
        for row in result.rows:
            if row.targets:
                held = all(target.holds for target in row.targets)
                n_held, n_rows = n_held + held, n_rows + 1
                yield f"{'holds ' if held else 'MISSED'} {result.subject}: {row.case}"
                if not held:
                    yield from (f"         {target}" for target in row.targets if not target.holds)
    minutes = sum(result.seconds for result in results) / 60
    yield f"{n_held} of {n_rows} rows hold, after {minutes:.1f} minutes"


def _intro(subject: str) -> str:
    """Return the docstring of a subject's module, which introduces it."""
    source = Path(__file__).with_name(f"{subject}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "") + "\n"


def _targets(results: Sequence[Result]) -> str:
    rows, missed = [], []
    for result in results:
        held = [(row.case, target) for row in result.rows for target in row.targets]
        n_held = sum(target.holds for _, target in held)
        outcome = [result.error, ""] if result.error else [str(n_held), str(len(held) - n_held)]
        rows.append([result.subject, *outcome, f"{result.seconds / 60:.1f}"])
        missed += [
            f"- {result.subject}, {case}: {target}" for case, target in held if not target.holds
        ]
    lines = ["Missed:\n", *missed, ""] if missed else ["None is missed.\n"]
    return "\n".join([table(["subject", "targets that hold", "missed", "minutes"], rows), *lines])


def _cost_by_size(results: Sequence[Result]) -> str:
    texts = [
        "From the smallest to the largest size that was measured, with the factor in brackets.\n"
    ]
    for result in results:
        axis = SIZE_AXES.get(result.subject, "")
        rows = [row for row in result.rows if axis in row.at]
        # A table for each set of quantities.
        for names in dict.fromkeys(tuple(row.values) for row in rows):
            same = [row for row in rows if tuple(row.values) == names]
            texts.append(_size_table(result.subject, axis, names, same))
    return "\n".join(texts)


def _size_table(subject: str, axis: str, names: Sequence[str], rows: Sequence[Row]) -> str:
    lines = []
    for beside in dict.fromkeys(_beside(row, axis) for row in rows):
        series = sorted(
            (row for row in rows if _beside(row, axis) == beside),
            key=lambda row: float(row.at[axis]),
        )
        first, last = series[0], series[-1]
        changes = [_change(first.values[name].median, last.values[name].median) for name in names]
        lines.append(
            [
                f"{subject} {beside}".strip(),
                _change(float(first.at[axis]), float(last.at[axis])),
                *changes,
            ]
        )
    return table(["", axis, *names], lines)


def _beside(row: Row, axis: str) -> str:
    """Return the case's other coordinates as text."""
    return ", ".join(
        f"{name} {value}" if isinstance(value, int) else str(value)
        for name, value in row.at.items()
        if name != axis
    )


def _change(first: float, last: float) -> str:
    return f"{figure(first)} → {figure(last)} (x {figure(last / first)})"


def _tables(rows: Sequence[Row]) -> Iterator[str]:
    """Yield a table for each set of quantities, in the order of the rows.

    A table of a single row is transposed.
    """
    for names, group in groupby(rows, key=lambda row: tuple(row.values)):
        lines = []
        for row in group:
            targets = [
                f"{target.name} {'≥' if target.at_least else '≤'} {figure(target.bound)}: "
                f"{figure(target.value.median)}, {'holds' if target.holds else '**missed**'}"
                for target in row.targets
            ]
            lines.append(
                [row.case, *(str(row.values[name]) for name in names), "<br>".join(targets)]
            )
        head = ["case", *names, "must reach"]
        yield (
            table(head, lines)
            if len(lines) > 1
            else table([head[0], lines[0][0]], [*zip(head[1:], lines[0][1:], strict=True)])
        )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
