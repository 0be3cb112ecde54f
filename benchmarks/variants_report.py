"""Print the tables of `benchmarks.variants` from a folder of results, for docs/quality.md."""

import argparse
import json
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna

from benchmarks.report import table
from benchmarks.variants import STUDY, VARIANTS
from recsys.search.record.study_folder import StudyFolder

FEWEST = 15
"""Trials that importances need at least."""


def compare_variants(folder: Path) -> Iterator[str]:
    """Yield the table of each variant's best trial, and of its parameters' importances."""
    rows = []
    for name in VARIANTS:
        output = _read_output(folder, name)
        best, test = output["tune"]["best"], output["train"]["test"]
        config = ", ".join(
            f"{path.partition('.')[2]} {_short(value)}" for path, value in best["params"].items()
        )
        values = best["value"], test["hit_rate_at_10"], test["ndcg_at_10"]
        n_trials = len(output["tune"]["trials"])
        rows.append([name, str(n_trials), *(f"{value:.4f}" for value in values), config])
    head = ["variant", "trials", "validation NDCG@10", "test HR@10", "test NDCG@10", "config"]
    yield table(head, rows)
    studies = {name: folder / "work" / name / "studies" / STUDY for name in VARIANTS}
    rows = [row for name, study in studies.items() for row in importances(name, study)]
    yield table(["study", "loss", "trials", "best NDCG@10", "importances"], rows)


def importances(name: str, study: Path) -> Iterator[list[str]]:
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
        yield [name, loss, str(len(found)), f"{max(map(_best, found)):.4f}", shares]


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


def _short(value: object) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, required=True, dest="folder")
    options = parser.parse_args()
    for line in compare_variants(options.folder):
        sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
