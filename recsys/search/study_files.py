"""What a study leaves on disk, and reading it back.

Stands around the record: `config.yaml` and `space.yaml` as started, `optuna.db` (the record), `trials/` (checkpoints of the
best), `best.yaml` and `trials.parquet`.
"""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from recsys.config import Config
from recsys.config_files import config_yaml, dump_yaml, parse_config, read_yaml
from recsys.search.record import StudyRecord
from recsys.search.space import SearchSpace
from recsys.search.study_storage import create_study, load_study
from recsys.search.summaries import TrialSummary, best_trial, ranked
from recsys.storage import write_atomically

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def study_folder(folder: Path, name: str) -> Path:
    """Where a study of this name lies.

    Raises:
        ValueError: if the name could leave the folder or is no plain name.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"study name: must be at most 100 letters, digits, dots, dashes and underscores, but got {name!r}. Rename it."
        )
    return folder / "studies" / name


def require_new(folder: Path) -> None:
    """Check that there is no study in this folder yet.

    Raises:
        FileExistsError: if there is.
    """
    if folder.exists():
        raise FileExistsError(f"--name: must be a new study, but got {folder.name}, which exists. Choose another name.")


def make_study(folder: Path, config: Config, space: SearchSpace, parts: int) -> StudyRecord:
    """Make the folder of a new study with its config, its space and an empty record, whose epochs report in `parts` steps.

    Raises:
        FileExistsError: if the study exists.
    """
    require_new(folder)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config_yaml(config), encoding="utf-8")
    (folder / "space.yaml").write_text(dump_yaml(space.tree()), encoding="utf-8")
    record = StudyRecord(create_study(folder, config, parts), config, space)
    record.enqueue_first_points()
    return record


def read_study(folder: Path) -> tuple[StudyRecord, Config]:
    """The record of a study for reading, and the config it was started with.

    Raises:
        FileNotFoundError: if the folder holds no study.
    """
    study = load_study(folder)
    file = folder / "config.yaml"
    config = parse_config(read_yaml(file), str(file))
    return StudyRecord(study, config, SearchSpace({}, ())), config


def write_results(folder: Path, record: StudyRecord, config: Config, summaries: list[TrialSummary]) -> None:
    """Write `trials.parquet` and, once a trial has a value, `best.yaml`; keep the checkpoints of the best trials alone."""
    rows = [leaderboard_row(summary) for summary in summaries]
    with write_atomically(folder / "trials.parquet") as file:
        pd.DataFrame(rows).to_parquet(file)
    best = best_trial(summaries)
    if best is not None:
        with write_atomically(folder / "best.yaml") as file:
            file.write_text(config_yaml(record.config_of(best.number)), encoding="utf-8")
    kept = {s.number for s in ranked(summaries)[: config.study.keep_checkpoints] if s.choosable}
    kept |= {s.number for s in summaries if s.state == "unfinished"}
    for checkpoint in (folder / "trials").glob("*.safetensors"):
        if int(checkpoint.stem) not in kept:
            checkpoint.unlink()


def leaderboard_row(summary: TrialSummary) -> dict[str, Any]:
    """A trial as a row of the leaderboard: its id and state, what it reached and where, its parameters."""
    return {
        "trial": str(summary.number),
        "state": summary.state,
        "value": summary.value,
        "epoch": summary.epoch,
        "epochs": summary.epochs,
        **summary.metrics,
        **summary.params,
        "mlflow_run_id": summary.run_id,
    }
