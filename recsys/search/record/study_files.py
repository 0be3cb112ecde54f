"""What a study leaves on disk, and reading it back.

Stands around the record: `config.yaml` and `space.yaml` as started, `optuna.db` (the record), `best.yaml` and
`trials.parquet`. The trials' own folders are `trial_folders`' matter.
"""

import re
from pathlib import Path
from typing import Any

import pandas as pd

from recsys.config.files import config_yaml, dump_yaml, parse_config, read_yaml
from recsys.config.schema import Config, config_paths, get_value
from recsys.errors import InputError
from recsys.search.record.record import StudyRecord
from recsys.search.record.study_storage import (
    Start,
    create_study,
    fetch_study,
    load_study,
    read_start,
    record_of,
    reopen_study,
)
from recsys.search.record.summaries import TrialSummary, best_trial, ranked
from recsys.search.space.file import parse_space, read_effective_space
from recsys.search.space.space import SearchSpace
from recsys.storage.files import temporary_sibling, write_atomically
from recsys.storage.s3 import upload_folder

_MAY_CHANGE = (
    *(
        f"study.{name}"
        for name in ("n_trials", "time_budget", "max_concurrent", "keep_checkpoints", "storage")
    ),
    "resources.",
    "tracking.",
    "cluster.",
)
"""Config paths that shape no trial."""
_N_WARM_STARTS = 5
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def study_folder(folder: Path, name: str) -> Path:
    """Where a study of this name lies.

    Raises:
        InputError: if the name could leave the folder or is no plain name.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            "study name",
            "must be at most 100 letters, digits, dots, dashes and underscores",
            f"{name!r}",
            "Rename it.",
        )
    return folder / "studies" / name


def find_study(folder: Path, name: str) -> Path:
    """Where a study of this name lies or is to lie, brought here if it lies in S3; raises what `study_folder` does."""
    found = study_folder(folder, name)
    fetch_study(found)
    return found


def require_new(folder: Path) -> None:
    """Check that there is no study in this folder yet.

    Raises:
        InputError: if there is.
    """
    if folder.exists():
        raise InputError(
            "--name",
            "must be a new study",
            f"{folder.name}, which exists",
            "Choose another name, or --resume it.",
        )


def make_study(folder: Path, config: Config, space: SearchSpace, start: Start) -> None:
    """Make the folder of a new study, whole or not at all: its config, its space and a record with the first points queued.

    Raises:
        InputError: if the study exists.
    """
    require_new(folder)
    with temporary_sibling(folder) as temporary:
        (temporary / "config.yaml").write_text(config_yaml(config), encoding="utf-8")
        (temporary / "space.yaml").write_text(dump_yaml(space.tree()), encoding="utf-8")
        StudyRecord(create_study(temporary, config, start), config, space).enqueue_first_points()
        try:
            temporary.rename(folder)
        except OSError:
            require_new(folder)  # another process may have made it since it was looked for
            raise
        upload_folder(folder, last=record_of(folder))


def reopen(folder: Path, config: Config, space: SearchSpace) -> StudyRecord:
    """The record of a study to go on with, by the config and the space that it was started with (see `require_same`)."""
    with write_atomically(folder / "config.yaml") as file:
        file.write_text(config_yaml(config), encoding="utf-8")
    record = StudyRecord(reopen_study(folder, config), config, space)
    record.reopen()
    return record


def read_start_space(
    folder: Path, file: Path | None, config: Config, decided: set[str], *, goes_on: bool
) -> tuple[SearchSpace, set[str]]:
    """The space of a new study by its file, or of one that goes on; and the paths that flags and `--set` took out of it.

    Raises:
        InputError: if a new study exists already; if there is no such file, or no such study to go on with; if a new study has no
            file, or listing the file's mistakes.
    """
    if goes_on:
        decided = decided | set(read_start(folder, config.study.storage).decided)
        return started_space(folder) if file is None else read_effective_space(
            file, config, decided
        ), decided
    require_new(folder)
    if file is None:
        raise InputError("--space", "must be given", "nothing", "See --help.")
    return read_effective_space(file, config, decided), decided


def with_best_of(space: SearchSpace, folder: Path, storage: str | None) -> SearchSpace:
    """The space with the points nearest to the best trials of another study (see `read_study`) as further ones to try first.

    Raises:
        InputError: if the folder holds no study; if no trial of it has a value.
    """
    record, _ = read_study(folder, storage)
    best = [summary for summary in ranked(record.summaries()) if summary.choosable][:_N_WARM_STARTS]
    if not best:
        raise InputError(
            "--warm-start",
            "must be a study with a finished epoch",
            f"{folder.name}, which has none",
            "Leave it out.",
        )
    points = [space.point(record.config_of(summary.number)) for summary in best]
    return SearchSpace(space.domains, (*space.warm_start, *points))


def started_config(folder: Path) -> Config:
    """The config that a study was started with, or continued with last.

    Raises:
        InputError: if the folder holds no study.
    """
    record_of(folder)
    file = folder / "config.yaml"
    return parse_config(read_yaml(file), str(file))


def started_space(folder: Path) -> SearchSpace:
    """The space that a study was started with.

    Raises:
        InputError: if the folder holds no study.
    """
    record_of(folder)
    file = folder / "space.yaml"
    return parse_space(read_yaml(file), str(file))


def require_same(folder: Path, config: Config, space: SearchSpace, start: Start) -> None:
    """Check that a study goes on as it was started.

    Raises:
        InputError: listing what differs: data, space, and those parts of the config that shape its trials.
    """
    started, before, now = started_config(folder), started_space(folder).tree(), space.tree()
    pairs = {path: (get_value(started, path), get_value(config, path)) for path in config_paths()}
    pairs = {path: pair for path, pair in pairs.items() if not path.startswith(_MAY_CHANGE)}
    for path in before["parameters"] | now["parameters"]:
        pairs[f"search space, {path}"] = (
            before["parameters"].get(path),
            now["parameters"].get(path),
        )
    pairs["data (its fingerprint)"] = (
        read_start(folder, config.study.storage).fingerprint,
        start.fingerprint,
    )
    changed = [
        f"{place}: must stay {was!r}, but got {value!r}."
        for place, (was, value) in pairs.items()
        if was != value
    ]
    if changed:
        raise InputError.listing(
            "--resume", [f"{line} Search under another --name." for line in changed]
        )


def read_study(folder: Path, storage: str | None = None) -> tuple[StudyRecord, Config]:
    """The record of a study for reading, and the config it was started with.

    `storage`: URL of the database that the record is in, where it is not the one in the study's config.

    Raises:
        InputError: if the folder holds no study; if its database cannot be reached.
    """
    config = started_config(folder)
    study = load_study(folder, storage or config.study.storage)
    return StudyRecord(study, config, started_space(folder)), config


def write_results(folder: Path, record: StudyRecord, summaries: list[TrialSummary]) -> None:
    """Write `trials.parquet` and, once a trial has a value, `best.yaml`."""
    rows = [leaderboard_row(summary) for summary in summaries]
    with write_atomically(folder / "trials.parquet") as file:
        pd.DataFrame(rows).to_parquet(file)
    best = best_trial(summaries)
    if best is not None:
        with write_atomically(folder / "best.yaml") as file:
            file.write_text(config_yaml(record.config_of(best.number)), encoding="utf-8")


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
