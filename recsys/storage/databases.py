"""Databases that can store the record of a study or MLflow's runs: their URLs and their checks."""

import sqlite3
from contextlib import closing
from pathlib import Path

from recsys.errors import InputError

DATABASES = ("postgresql", "mysql")
"""Databases that several machines can share."""
_CONNECT_TIMEOUT = 5
"""Seconds."""


def is_shared_database(url: str) -> bool:
    """Return True if a URL names a database that several machines can share."""
    scheme, separator, _ = url.partition("://")
    return bool(separator) and scheme.partition("+")[0] in DATABASES


def ping(url: str) -> None:
    """Connect to a database once. Optuna and MLflow would retry for minutes.

    Raises:
        ConnectionError: if the database does not answer or refuses the connection.
    """
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(url, connect_args={"connect_timeout": _CONNECT_TIMEOUT})
        with engine.connect():
            pass
        engine.dispose()
    except ImportError as error:
        raise ConnectionError(
            f"{error}; PostgreSQL's driver comes with the extra postgresql"
        ) from None
    except (sqlalchemy.exc.SQLAlchemyError, ValueError) as error:
        raise ConnectionError(str(error).splitlines()[0]) from None


def require_intact(file: Path) -> None:
    """Check that a file is an SQLite database and not damaged.

    Raises:
        InputError: if it is another file, damaged, or cannot be opened.
        sqlite3.DatabaseError: if the disk is full or the database is locked.
    """
    try:
        with closing(sqlite3.connect(file)) as database:
            (answer,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorname.startswith(("SQLITE_FULL", "SQLITE_BUSY", "SQLITE_LOCKED")):
            raise
        answer = str(error)
    if answer != "ok":
        raise InputError(
            file,
            "must be a whole SQLite database",
            found=f"it is damaged ({' '.join(answer.split())})",
            remedy="Restore it from a copy, or choose another study name.",
        )
