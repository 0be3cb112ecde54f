"""Tables and curves of `benchmarks.quality` from a folder of results, for docs/quality.md."""

import argparse
import json
import re
import sqlite3
import statistics
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from matplotlib.figure import Figure

from benchmarks.plots import save_plot
from benchmarks.quality import SEEDS, SYSTEMS, VARIANTS, study_name
from recsys.search.record.study_folder import StudyFolder

SHOWN_AT = (60, 120, 300, 600)
"""Seconds at which the table shows the best value so far."""
FEWEST = 15
"""Trials that importances need at least."""


def best_so_far(work: Path, seconds: np.ndarray, metric: str = "val_ndcg_at_10") -> np.ndarray:
    """Return the best validation value of whole epochs at these times since the search began.

    NaN before the first epoch.
    """
    with sqlite3.connect(work / "mlflow.db") as connection:
        (start,) = connection.execute("SELECT MIN(start_time) FROM runs").fetchone()
        query = "SELECT timestamp, value FROM metrics WHERE key = ? ORDER BY timestamp"
        found = np.array(connection.execute(query, (metric,)).fetchall(), dtype=np.float64)
    logged, best = (found[:, 0] - start) / 1000, np.maximum.accumulate(found[:, 1])
    index = np.searchsorted(logged, seconds, side="right") - 1
    return np.where(index < 0, np.nan, best[index])


def compare_systems(folder: Path, plot: Path) -> Iterator[str]:
    """Yield the table of the systems, and write their curves as SVG."""
    seconds = np.arange(0, SHOWN_AT[-1] + 1, 5)
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    panel = figure.subplots()
    yield _row("search", *(f"{at // 60} min" for at in SHOWN_AT), "trials", "epochs")
    yield _row(*["---"] * (len(SHOWN_AT) + 3))
    for color, system in enumerate(SYSTEMS):
        names = [study_name(system, seed) for seed in SEEDS]
        curves = np.array([best_so_far(folder / "work" / name, seconds) for name in names])
        panel.plot(seconds / 60, np.median(curves, axis=0), color=f"C{color}", label=system)
        panel.fill_between(
            seconds / 60,
            curves.min(axis=0),
            curves.max(axis=0),
            color=f"C{color}",
            alpha=0.15,
            linewidth=0,
        )
        trials = [_read_output(folder, name)["tune"]["trials"] for name in names]
        cells = [_spread(curves[:, int(np.searchsorted(seconds, at))]) for at in SHOWN_AT]
        yield _row(
            system,
            *cells,
            _counts([len(t) for t in trials]),
            _counts([sum(x["epochs"] for x in t) for t in trials]),
        )
    panel.set(xlabel="minutes on one core", ylabel="best validation NDCG@10", ylim=(0.56, None))
    panel.legend(loc="upper left")
    save_plot(figure, plot)


def compare_variants(folder: Path) -> Iterator[str]:
    """Yield the table of each variant's best trial, and of its parameters' importances."""
    yield _row("variant", "trials", "validation NDCG@10", "test HR@10", "test NDCG@10", "config")
    yield _row(*["---"] * 6)
    for name in VARIANTS:
        output = _read_output(folder, study_name(name, 0))
        best, test = output["tune"]["best"], output["train"]["test"]
        trials = str(len(output["tune"]["trials"]))
        config = ", ".join(
            f"{path.partition('.')[2]} {_short(value)}" for path, value in best["params"].items()
        )
        yield _row(
            name,
            trials,
            f"{best['value']:.4f}",
            f"{test['hit_rate_at_10']:.4f}",
            f"{test['ndcg_at_10']:.4f}",
            config,
        )
    yield ""
    yield _row("study", "loss", "trials", "best NDCG@10", "importances")
    yield _row(*["---"] * 5)
    for name in VARIANTS:
        yield from importances(name, folder / "work" / study_name(name, 0) / "studies" / "s")


def importances(name: str, study: Path) -> Iterator[str]:
    """Yield a row for each loss of a study: its best value and Optuna's importances (fANOVA).

    A trial counts with its best value, and a pruned one counts too: without the pruned trials the
    bad values of a parameter would be missing.
    """
    trials = [
        trial
        for trial in StudyFolder(study).optuna_study().get_trials(deepcopy=False)
        if trial.intermediate_values
    ]
    by_loss: dict[str, list[optuna.trial.FrozenTrial]] = {}
    for trial in trials:
        params = {path.partition(" ")[0]: value for path, value in trial.params.items()}
        uses_all = params.get("training.negative_sampling") == "all"
        loss = f"{params['training.loss']}{', all' if uses_all else ''}"
        by_loss.setdefault(loss, []).append(trial)
    for loss, found in sorted(by_loss.items(), key=lambda pair: -max(map(_best, pair[1]))):
        shares = "too few" if len(found) < FEWEST else _importances(found)
        yield _row(name, loss, str(len(found)), f"{max(map(_best, found)):.4f}", shares)


def _importances(trials: Sequence[optuna.trial.FrozenTrial]) -> str:
    study = optuna.create_study(direction="maximize")
    for trial in trials:
        copy = optuna.trial.create_trial(
            params=trial.params, distributions=trial.distributions, value=_best(trial)
        )
        study.add_trial(copy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna warns that it omits parameters with one value
        found = optuna.importance.get_param_importances(
            study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
        )
    named = {re.sub(r" \[.*", "", path).partition(".")[2]: share for path, share in found.items()}
    return ", ".join(f"{path} {share:.2f}" for path, share in named.items() if share >= 0.01)


def _best(trial: optuna.trial.FrozenTrial) -> float:
    return max(trial.intermediate_values.values())


def _read_output(folder: Path, name: str) -> Any:
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def _spread(values: np.ndarray) -> str:
    return f"{statistics.median(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def _counts(values: Sequence[int]) -> str:
    return f"{statistics.median(values):.0f} ({min(values)} to {max(values)})"


def _short(value: object) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the tables and write the curves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, dest="folder")
    parser.add_argument("--plot", type=Path, required=True, help="SVG file of the curves")
    options = parser.parse_args()
    for line in (
        *compare_systems(options.folder, options.plot),
        "",
        *compare_variants(options.folder),
    ):
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
