"""Databases by URL, such as postgresql://user@host/name: which ones there are, and whether one answers.

The ground floor. The record of a study and MLflow may each lie in one.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from recsys.errors import InputError

DATABASES = ("postgresql", "mysql")
"""Those that many machines can share; SQLite, on a disk of the driver's machine, is what there is without a URL."""
_CONNECT_SECONDS = 5


def is_shared_database(url: str) -> bool:
    """Whether a URL names a database that many machines can share."""
    scheme, found, _ = url.partition("://")
    return bool(found) and scheme.partition("+")[0] in DATABASES


def ping(url: str) -> None:
    """Open a database once: those who use it would try for minutes.

    Raises:
        ConnectionError: if it does not answer or lets nobody in.
    """
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(url, connect_args={"connect_timeout": _CONNECT_SECONDS})
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
    """Check that a file is a database of SQLite, and whole; a full or locked one raises what SQLite says of it.

    Raises:
        InputError: if it is something else, damaged, or cannot be opened.
    """
    try:
        with closing(sqlite3.connect(file)) as database:
            (found,) = database.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorname.startswith(("SQLITE_FULL", "SQLITE_BUSY", "SQLITE_LOCKED")):
            raise
        found = str(error)
    if found != "ok":
        raise InputError(
            file,
            "must be a whole SQLite database",
            found=f"it is damaged ({' '.join(found.split())})",
            remedy="Bring it back from a copy, or search under another --name.",
        )
