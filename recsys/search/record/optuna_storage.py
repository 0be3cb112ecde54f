"""Storages of the record: an SQLite file, a journal, or a study in a database by URL.

A file in the study's folder says which of the three the study has.
"""

import logging
import uuid
from pathlib import Path

import optuna
from alembic.util.exc import CommandError
from optuna.storages import BaseStorage, RDBStorage
from sqlalchemy.exc import SQLAlchemyError

from recsys.config.files import dump_yaml, read_yaml
from recsys.errors import InputError
from recsys.search.record.journal import open_journal, repair_journal
from recsys.storage.credentials import with_password
from recsys.storage.databases import ping, require_intact
from recsys.storage.files import network_file_system
from recsys.storage.s3 import list_folder, url_of

optuna.logging.set_verbosity(optuna.logging.WARNING)
logging.getLogger("alembic").setLevel(logging.WARNING)

SQLITE, JOURNAL, DATABASE = "optuna.db", "optuna.jsonl", "optuna.yaml"
"""Names of the file that says which storage a study has; the last one names it in a database."""
_STUDY_NAME = "study"


def choose_storage(folder: Path, url: str | None, name: str) -> None:
    """Create the file that says which storage a new study has: the database `url`, or its own.

    In a database, the study's name is `name` and a unique suffix.
    """
    if url is not None:
        unique = f"{name}-{uuid.uuid4().hex}"
        (folder / DATABASE).write_text(dump_yaml({"study_name": unique}), encoding="utf-8")
    elif url_of(folder) is not None or network_file_system(folder) is not None:
        (folder / JOURNAL).touch()
    else:
        (folder / SQLITE).touch()


def storage_file(folder: Path) -> str:
    """Return the name of the file that says which storage the study of a folder has.

    Raises:
        InputError: if there is none.
    """
    found = _storage_files(folder)
    if not found:
        is_local = url_of(folder) is None
        others = [name for name in list_folder(folder.parent) if not name.startswith(".")]
        studies = sorted(
            name for name in others if not is_local or _storage_files(folder.parent / name)
        )
        raise InputError(
            folder,
            "must be a study",
            "no record of one",
            f"Studies here are {', '.join(studies)}."
            if studies
            else "Start one with python -m recsys.tune.",
        )
    return found[0]


def _storage_files(folder: Path) -> list[str]:
    return [name for name in (SQLITE, JOURNAL, DATABASE) if (folder / name).is_file()]


def name_in_storage(folder: Path) -> str:
    """Return the name of a folder's study in its storage. Raises as `storage_file`."""
    if storage_file(folder) == DATABASE:
        name: str = read_yaml(folder / DATABASE)["study_name"]
        return name
    return _STUDY_NAME


def open_storage(folder: Path, url: str | None) -> BaseStorage:
    """Return the storage of a folder's study; `url`: the URL of its database, if it has one.

    Raises:
        InputError: if the folder has no study; if the file is damaged; if the study is in a
            database, and `url` is None or cannot be reached.
    """
    file = storage_file(folder)
    if file == JOURNAL:
        return open_journal(folder / JOURNAL)
    if file == SQLITE:
        require_intact(folder / SQLITE)
        return RDBStorage(f"sqlite:///{(folder / SQLITE).resolve()}")
    if url is None:
        raise InputError(
            "study.storage",
            "must be the database that the study was started with",
            "nothing",
            "Give its URL.",
        )
    try:
        ping(with_password(url))
        return RDBStorage(with_password(url), engine_kwargs={"pool_pre_ping": True})
    except (ConnectionError, SQLAlchemyError, CommandError, RuntimeError) as error:
        raise InputError(
            "study.storage",
            "must be a database that can be reached",
            f"{url} ({' '.join(str(error).split())})",
            "Passwords are not stored: give the URL with its own in RECSYS_STUDY_STORAGE, "
            "or have it in ~/.pgpass.",
        ) from None


def missing_study(folder: Path, url: str | None) -> InputError:
    """Return the error of a storage that does not have the study of its folder."""
    if url is None:
        return InputError(
            folder / storage_file(folder),
            "must have the record of a study",
            found="is empty",
            remedy="Choose another study name.",
        )
    return InputError(
        "study.storage",
        f"must have the study {name_in_storage(folder)}",
        f"{url}, which does not have it",
        "Give the database that it was started with.",
    )


def prepare_for_writing(folder: Path, url: str | None) -> None:
    """Check that this process may write the storage of a folder's study, and repair a journal.

    Raises:
        InputError: if the folder has no study; if it is not in a database and a `url` is given; if
            it is in SQLite on a network file system.
    """
    file = storage_file(folder)
    if file != DATABASE and url is not None:
        raise InputError(
            "study.storage",
            f"must be left out for a study that has its record in {file}",
            url,
            "Choose another study name, and warm-start from this study.",
        )
    if file == JOURNAL:
        repair_journal(folder / JOURNAL)
    kind = network_file_system(folder)
    if file == SQLITE and kind is not None:
        raise InputError(
            folder / SQLITE,
            "must be on a disk of this machine to be written",
            f"a network file system ({kind})",
            "Resume the study on the machine that has the disk.",
        )
