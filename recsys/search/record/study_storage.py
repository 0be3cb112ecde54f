"""Where the record lies, one Optuna study, and the sampler that proposes from it.

It is an SQLite file in the study's folder, a journal where the folder is no place for SQLite, or part of a database by URL.
"""

import dataclasses
import logging
import uuid
from dataclasses import dataclass
from pathlib import Path

import optuna
from alembic.util.exc import CommandError
from sqlalchemy.exc import SQLAlchemyError

from recsys.config.files import dump_yaml, read_yaml
from recsys.config.schema import Config
from recsys.errors import InputError
from recsys.search.record.journal import open_journal, take_over
from recsys.search.record.samplers import make_sampler
from recsys.search.record.write_through import WriteThroughStorage
from recsys.storage.credentials import with_password
from recsys.storage.databases import ping, require_intact
from recsys.storage.files import network_file_system
from recsys.storage.s3 import fetch_folder, list_folder, url_of

optuna.logging.set_verbosity(optuna.logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

SQLITE, JOURNAL, DATABASE = "optuna.db", "optuna.jsonl", "optuna.yaml"
"""Which of these files lies in a study's folder says what its record is; the last one holds the study's name in the database."""
_STUDY_NAME = "study"
_START = "start"


@dataclass(frozen=True)
class Start:
    """What a study is started with beside its config and its space.

    `fingerprint`: of the processed data. `parts`: steps that an epoch reports in. `decided`: config paths that flags and `--set`
    took out of the space file.
    """

    fingerprint: str = ""
    parts: int = 1
    decided: tuple[str, ...] = ()


def create_study(folder: Path, config: Config, start: Start) -> optuna.Study:
    """A new, empty study in the storage that the folder and `study.storage` ask for.

    Raises:
        InputError: if the database cannot be reached.
    """
    name, sampler = _STUDY_NAME, make_sampler(config, n_trials=0)
    if config.study.storage is not None:
        name = f"{folder.name}-{uuid.uuid4().hex}"
        (folder / DATABASE).write_text(dump_yaml({"study_name": name}), encoding="utf-8")
    elif url_of(folder) is not None or network_file_system(folder) is not None:
        (folder / JOURNAL).touch()
    else:
        (folder / SQLITE).touch()
    study = optuna.create_study(
        storage=_storage(folder, config.study.storage),
        study_name=name,
        sampler=sampler,
        direction="maximize",
    )
    study.set_user_attr(_START, dataclasses.asdict(start))
    return study


def start_of(study: optuna.Study) -> Start:
    """What a study was started with."""
    found = study.user_attrs.get(_START, {})
    return Start(**{**found, "decided": tuple(found.get("decided", ()))})


def read_start(folder: Path, storage: str | None) -> Start:
    """What the study of a folder was started with; raises what `load_study` does."""
    return start_of(load_study(folder, storage))


def reopen_study(folder: Path, config: Config) -> optuna.Study:
    """The study of a folder, for the one process that goes on with it.

    Raises:
        InputError: if the folder holds no study; if its record is SQLite's and lies where it must not be written, or is no
            database's and one is given; if its database cannot be reached.
    """
    record = record_of(folder)
    if record != DATABASE and config.study.storage is not None:
        raise InputError(
            "study.storage",
            f"must be left out for a study that has its record in {record}",
            config.study.storage,
            "Search under another --name, with --warm-start.",
        )
    if record == JOURNAL:
        take_over(folder / JOURNAL)
    kind = network_file_system(folder)
    if record == SQLITE and kind is not None:
        raise InputError(
            f"{folder / SQLITE}",
            "must lie on a disk of this machine to be written",
            f"a network file system ({kind})",
            "Go on with the study on the machine that has the disk.",
        )
    found = load_study(folder, config.study.storage)
    # A journal is in memory as it is.
    storage = (
        found._storage
        if record == JOURNAL
        else WriteThroughStorage(found._storage, found.study_name)
    )
    sampler = make_sampler(config, len(found.get_trials(deepcopy=False)))
    return optuna.load_study(study_name=found.study_name, storage=storage, sampler=sampler)


def load_study(folder: Path, storage: str | None = None) -> optuna.Study:
    """The study of a folder, for reading. `storage`: the database that its record is in, if it is in one.

    Raises:
        InputError: if the folder holds no study, or the database has no such study; if the database cannot be reached; if the
            file with the record is damaged.
    """
    name = (
        read_yaml(folder / DATABASE)["study_name"] if record_of(folder) == DATABASE else _STUDY_NAME
    )
    try:
        return optuna.load_study(storage=_storage(folder, storage), study_name=name)
    except KeyError:
        if storage is None:
            raise InputError(
                f"{folder / record_of(folder)}",
                "must have the record of a study",
                found="is empty",
                remedy="Search under another --name.",
            ) from None
        raise InputError(
            "study.storage",
            f"must have the study {name}",
            f"{storage}, which has not",
            "Give the database that it was started with.",
        ) from None


def record_of(folder: Path) -> str:
    """Which of the files that tell of a record lies in a study's folder.

    Raises:
        InputError: if there is none.
    """
    found = _records(folder)
    if not found:
        is_here = url_of(folder) is None
        there = [name for name in list_folder(folder.parent) if not name.startswith(".")]
        known = sorted(name for name in there if not is_here or _records(folder.parent / name))
        raise InputError(
            folder,
            "must be a study",
            "no record of one",
            f"Studies here are {', '.join(known)}."
            if known
            else "Start one with python -m recsys.tune.",
        )
    return found[0]


def fetch_study(folder: Path) -> None:
    """Bring a study here from S3, but for its trials' folders, if it is there and whole."""
    if url_of(folder) is not None and {JOURNAL, DATABASE} & set(list_folder(folder)):
        fetch_folder(folder, exclude=("trials",))


def _records(folder: Path) -> list[str]:
    return [name for name in (SQLITE, JOURNAL, DATABASE) if (folder / name).is_file()]


def _storage(folder: Path, url: str | None) -> optuna.storages.BaseStorage:
    """The storage of a study's folder; `url`: of the database, if it is in one."""
    record = record_of(folder)
    if record == JOURNAL:
        return open_journal(folder / JOURNAL)
    if record == SQLITE:
        require_intact(folder / SQLITE)
        return optuna.storages.RDBStorage(f"sqlite:///{(folder / SQLITE).resolve()}")
    if url is None:
        raise InputError(
            "study.storage",
            "must be the database that the study was started with",
            "nothing",
            "Give its URL.",
        )
    try:
        ping(with_password(url))
        return optuna.storages.RDBStorage(with_password(url), engine_kwargs={"pool_pre_ping": True})
    except (ConnectionError, SQLAlchemyError, CommandError, RuntimeError) as error:
        raise InputError(
            "study.storage",
            "must be a database that can be reached",
            f"{url} ({error})",
            (
                "Passwords are written nowhere: give the URL with its own in RECSYS_STUDY_STORAGE, or have it in ~/.pgpass."
            ),
        ) from None
