"""Checks of a soak's record and of its runs in MLflow: every trial once, none lost or repeated."""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import optuna

Ended = dict[str, tuple[int, ...]]
"""Trials that have ended, with the epochs that each reported."""
_TRIAL_TAGS = {"recsys": "trial", "ray": "trial_name"}
METRIC = "val_ndcg_at_10"


def ended_of_recsys(folder: Path) -> Ended:
    """Return the ended trials of the study's record, none before it exists."""
    path = folder / "studies" / "soak" / "optuna.db"
    if not path.exists():
        return {}
    study = optuna.load_study(study_name="study", storage=f"sqlite:///{path}")
    ended = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    return {str(trial.number): tuple(sorted(trial.intermediate_values)) for trial in ended}


def ended_of_ray(folder: Path) -> Ended:
    """Return the ended trials of Ray Tune's result or, before it exists, MLflow's finished runs."""
    path = folder / "result.json"
    if path.exists():
        return {
            name: tuple(range(1, epochs + 1))
            for name, epochs in json.loads(path.read_text()).items()
        }
    logged = _logged(folder)
    steps: dict[str, list[int]] = {
        name: [] for name, status in _runs(folder, "ray") if status == "FINISHED"
    }
    for name, step in logged:
        if name in steps:
            steps[name].append(step)
    return {name: tuple(sorted(found)) for name, found in steps.items()}


def check(side: str, folder: Path, known: Sequence[Ended]) -> dict[str, int]:
    """Count the ended trials and each kind of mistake.

    Args:
        side: `recsys` or `ray`.
        folder: the soak's folder.
        known: the trials that had ended when each driver ended, in order.
    """
    final, runs = known[-1], _runs(folder, side)
    before = {(name, epochs) for ended in known[:-1] for name, epochs in ended.items()}
    names = Counter(name for name, _ in runs)
    logged = _logged(folder, _TRIAL_TAGS[side])
    reported = {(name, epoch) for name, epochs in final.items() for epoch in epochs}
    return {
        "trials ended": len(final),
        "ended trials lost or changed": len(
            {name for name, epochs in before if final.get(name) != epochs}
        ),
        "trials without a run": len(final.keys() - names.keys()),
        "runs of no trial": len(names.keys() - final.keys()),
        "runs too many": sum(count - 1 for count in names.values()),
        "runs left running": sum(status == "RUNNING" for _, status in runs),
        "epochs not logged": len(reported - logged.keys()),
        "epochs logged twice": sum(count - 1 for count in logged.values()),
    }


def _runs(folder: Path, side: str) -> list[tuple[str, str]]:
    """Return the trial and the status of each trial's run."""
    query = (
        "SELECT t.value, r.status FROM runs r JOIN tags t ON t.run_uuid = r.run_uuid "
        "WHERE t.key = ?"
    )
    return [(name, status) for name, status in _ask(folder, query, _TRIAL_TAGS[side])]


def _logged(folder: Path, tag: str = "trial_name") -> Counter[tuple[str, int]]:
    """Count how often each epoch of each trial was logged."""
    query = (
        "SELECT t.value, m.step, COUNT(*) FROM metrics m JOIN tags t ON t.run_uuid = m.run_uuid "
        f"WHERE m.key = '{METRIC}' AND t.key = ? GROUP BY t.value, m.step"
    )
    return Counter({(name, step): count for name, step, count in _ask(folder, query, tag)})


def _ask(folder: Path, query: str, tag: str) -> list[tuple[str, ...]]:
    path = folder / "mlflow.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(path, timeout=60)) as connection:
        has_tables = connection.execute(
            "SELECT COUNT(*) FROM sqlite_master WHERE name = 'tags'"
        ).fetchone()[0]
        return connection.execute(query, (tag,)).fetchall() if has_tables else []
