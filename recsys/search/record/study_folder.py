"""The folder of a study: how a study is created, read and resumed.

It holds `config.yaml` and `space.yaml` as the study was created, the record (`optuna_storage`),
and later `best.yaml` and `trials.parquet`. The trials' own folders belong to `trial_folders`.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import optuna
import pandas as pd

from recsys.config.files import config_yaml, dump_yaml, parse_config, read_yaml
from recsys.config.schema import Config, config_paths, get_value
from recsys.errors import Argument, InputError
from recsys.search.record.optuna_storage import (
    DATABASE,
    JOURNAL,
    choose_storage,
    missing_study,
    name_in_storage,
    open_storage,
    prepare_for_writing,
    storage_file,
)
from recsys.search.record.origin import StudyOrigin
from recsys.search.record.study_record import StudyRecord
from recsys.search.record.summaries import TrialSummary, best_trial, leaderboard_row
from recsys.search.record.write_through import WriteThroughStorage
from recsys.search.space.search_space import SearchSpace
from recsys.search.space.space_file import parse_space
from recsys.storage.files import temporary_sibling, write_atomically
from recsys.storage.s3 import fetch_folder, list_folder, upload_folder, url_of

_MAY_CHANGE = (
    *(
        f"study.{name}"
        for name in ("n_trials", "time_budget", "max_concurrent", "keep_checkpoints", "storage")
    ),
    "resources.",
    "tracking.",
    "cluster.",
)
"""Config paths that do not affect a trial, so that a resumed study may change them."""
_EARLIER_EVALUATION = {"every": 1}
"""Settings that a study of an earlier version lacks, with the values that it ran with."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class StudyFolder:
    """A study on disk, in the folder `path`, which may not exist yet."""

    path: Path

    @classmethod
    def find(cls, root: Path, study: str) -> Self:
        """Return the folder of the study with this name under `root`, fetched if it is in S3.

        Everything except the trials' folders is fetched, once S3 has the whole study.

        Raises:
            InputError: if the name could leave the root or is no plain name.
        """
        if not _NAME.fullmatch(study):
            raise InputError(
                Argument("study"),
                "must be at most 100 letters, digits, dots, dashes and underscores",
                f"{study!r}",
                "Rename it.",
            )
        path = root / "studies" / study
        if url_of(path) is not None and {JOURNAL, DATABASE} & set(list_folder(path)):
            fetch_folder(path, exclude=("trials",))
        return cls(path)

    @property
    def name(self) -> str:
        """The study's name."""
        return self.path.name

    def exists(self) -> bool:
        """Return whether the folder exists."""
        return self.path.exists()

    def require_new(self) -> None:
        """Check that there is no such study yet.

        Raises:
            InputError: if there is.
        """
        if self.exists():
            raise InputError(
                Argument("study"),
                "must be a new study",
                f"{self.name}, which exists",
                "Choose another study name, or resume the study.",
            )

    def create(self, config: Config, space: SearchSpace, origin: StudyOrigin) -> None:
        """Create the folder, whole or not at all, with a record that queues the first points.

        Raises:
            InputError: if the study exists; if its database cannot be reached.
        """
        self.require_new()
        with temporary_sibling(self.path) as temporary:
            (temporary / "config.yaml").write_text(config_yaml(config), encoding="utf-8")
            (temporary / "space.yaml").write_text(dump_yaml(space.tree()), encoding="utf-8")
            study = create_optuna_study(temporary, config, origin, self.name)
            StudyRecord(study, config, space).enqueue_first_points()
            try:
                temporary.rename(self.path)
            except OSError:
                self.require_new()  # another process may have created it since the first check
                raise
            upload_folder(self.path, last=storage_file(self.path))

    def read(self, storage: str | None = None) -> tuple[StudyRecord, Config]:
        """Return the record, for reading, and the study's config; `storage` as in `optuna_study`.

        Raises:
            InputError: if there is no such study; if its record is damaged or cannot be reached.
        """
        config = self.config()
        study = self.optuna_study(storage or config.study.storage)
        return StudyRecord(study, config, self.space()), config

    def resume(self, config: Config, space: SearchSpace) -> StudyRecord:
        """Store the new config, and return the record, for the only process that writes it.

        `require_unchanged` says which config and space a study can be resumed with.

        Raises:
            InputError: if there is no such study; if its record must not be written from here, is
                damaged or cannot be reached.
        """
        prepare_for_writing(self.path, config.study.storage)
        with write_atomically(self.path / "config.yaml") as file:
            file.write_text(config_yaml(config), encoding="utf-8")
        stored = self.optuna_study(config.study.storage)
        storage = stored._storage
        if storage_file(self.path) != JOURNAL:  # Optuna holds a journal in memory already
            storage = WriteThroughStorage(storage, stored.study_name)
        study = optuna.load_study(study_name=stored.study_name, storage=storage)
        record = StudyRecord(study, config, space)
        record.resume()
        return record

    def config(self) -> Config:
        """Return the config that the study was created with, or resumed with last.

        Raises:
            InputError: if there is no such study.
        """
        storage_file(self.path)
        file = self.path / "config.yaml"
        tree = read_yaml(file)
        if isinstance(evaluation := tree.get("evaluation"), dict):
            tree["evaluation"] = _EARLIER_EVALUATION | evaluation
        return parse_config(tree, str(file))

    def space(self) -> SearchSpace:
        """Return the space that the study was created with.

        Raises:
            InputError: if there is no such study.
        """
        storage_file(self.path)
        file = self.path / "space.yaml"
        return parse_space(read_yaml(file), str(file))

    def origin(self, storage: str | None = None) -> StudyOrigin:
        """Return the study's origin. Takes `storage` and raises as `optuna_study`."""
        return StudyOrigin.of(self.optuna_study(storage))

    def optuna_study(self, storage: str | None = None) -> optuna.Study:
        """Return the Optuna study of the record, for reading.

        `storage`: the URL of the study's database, if it has one.

        Raises:
            InputError: if there is no such study, here or in the database; if its file is damaged;
                if its database cannot be reached.
        """
        try:
            return optuna.load_study(
                study_name=name_in_storage(self.path), storage=open_storage(self.path, storage)
            )
        except KeyError:
            raise missing_study(self.path, storage) from None

    def require_unchanged(self, config: Config, space: SearchSpace, origin: StudyOrigin) -> None:
        """Check that the study can be resumed with this config, space and data.

        Raises:
            InputError: if the data, the space or a setting that affects the trials differs, with
                all differences.
        """
        stored, before, now = self.config(), self.space().tree(), space.tree()
        pairs = {
            path: (get_value(stored, path), get_value(config, path))
            for path in config_paths()
            if not path.startswith(_MAY_CHANGE)
        }
        for path in before["parameters"] | now["parameters"]:
            old, new = (tree["parameters"].get(path) for tree in (before, now))
            pairs[f"search space, {path}"] = old, new
        fingerprint = self.origin(config.study.storage).fingerprint
        pairs["data (its fingerprint)"] = fingerprint, origin.fingerprint
        mistakes = [
            f"{place}: must stay {old!r}, but got {new!r}. Choose another study name."
            for place, (old, new) in pairs.items()
            if old != new
        ]
        if mistakes:
            raise InputError.listing(Argument("resume"), mistakes)

    def write_results(self, record: StudyRecord, summaries: list[TrialSummary]) -> None:
        """Write `trials.parquet` and, once a trial has a value, `best.yaml`."""
        rows = [leaderboard_row(summary) for summary in summaries]
        with write_atomically(self.path / "trials.parquet") as file:
            pd.DataFrame(rows).to_parquet(file)
        best = best_trial(summaries)
        if best is not None:
            with write_atomically(self.path / "best.yaml") as file:
                file.write_text(config_yaml(record.config_of(best.number)), encoding="utf-8")


def create_optuna_study(
    folder: Path, config: Config, origin: StudyOrigin, name: str | None = None
) -> optuna.Study:
    """Create an Optuna study without trials in the storage that a study of this folder has.

    `name`: of the study, by default that of the folder.

    Raises:
        InputError: if `study.storage` cannot be reached.
    """
    choose_storage(folder, config.study.storage, name or folder.name)
    study = optuna.create_study(
        storage=open_storage(folder, config.study.storage),
        study_name=name_in_storage(folder),
        direction="maximize",
    )
    origin.store(study)
    return study
