"""Where runs are logged, where their files lie, and whether anybody answers there.

Stands before a connection: it is asked before anything starts, so that nothing here imports mlflow.
"""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import requests

from recsys.config.environment import mlflow_login, mlflow_uri, set_mlflow_login
from recsys.config.schema import Config
from recsys.errors import InputError
from recsys.storage.credentials import strip_password
from recsys.storage.databases import is_shared_database, ping
from recsys.storage.files import network_file_system
from recsys.storage.s3 import url_of

_ANSWER_SECONDS = 5.0


def tracking_uri(config: Config, folder: Path) -> str | None:
    """Where runs are logged: `tracking.uri`, else MLFLOW_TRACKING_URI, else a database in the folder; None if it takes none.

    A password is left out; `credentials.with_password` has it.

    Raises:
        InputError: if MLFLOW_TRACKING_URI is a URL in which it is unclear where the password ends.
    """
    if config.tracking.uri is not None:
        return config.tracking.uri
    try:
        given = strip_password(mlflow_uri() or "")
    except ValueError as error:
        raise InputError.listing("MLFLOW_TRACKING_URI", [str(error)]) from None
    return given or (None if _takes_no_database(folder) else f"sqlite:///{folder / 'mlflow.db'}")


def require_place(config: Config, folder: Path) -> None:
    """Check that there is a place to log runs to, if there must be one.

    Raises:
        InputError: if the folder takes no database and none is given, or the one that is given is the record's.
    """
    uri = tracking_uri(config, folder)
    if uri is None and config.tracking.required:
        raise InputError(
            "tracking.uri",
            (
                f"must be a server or a database where --dir is {_takes_no_database(folder)}, as SQLite must not lie there"
            ),
            "nothing",
            "Give http://HOST:PORT or postgresql://USER@HOST/NAME, or --set tracking.required=false.",
        )
    storage = config.study.storage
    if uri is not None and storage is not None and uri == storage:
        raise InputError(
            "tracking.uri",
            "must be another database than study.storage",
            f"{uri} for both: MLflow and Optuna would take each other's tables for theirs",
            "Make one more.",
        )


def artifact_location(uri: str, folder: Path) -> str | None:
    """Where the files of runs in a database lie; None behind a server, which keeps them where it was told to."""
    if not uri.startswith("sqlite:") and not is_shared_database(uri):
        return None
    return url_of(folder / "artifacts") or (folder / "artifacts").resolve().as_uri()


def log_in(uri: str) -> str:
    """Of a server's address the part without user and password; those go where MLflow looks for them and never shows them."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or parts.username is None:
        return uri
    set_mlflow_login(unquote(parts.username), unquote(parts.password or ""))
    return strip_password(uri)


def require_answer(uri: str) -> None:
    """MLflow itself retries for minutes; ask a server or a database once before anything starts.

    Raises:
        OSError: if it does not answer.
    """
    if is_shared_database(uri):
        ping(uri)
    elif urlsplit(uri).scheme in ("http", "https"):
        requests.get(
            f"{uri.rstrip('/')}/health", auth=mlflow_login(), timeout=_ANSWER_SECONDS
        ).raise_for_status()


def _takes_no_database(folder: Path) -> str | None:
    """What makes a folder no place for SQLite, None if nothing does."""
    if url_of(folder) is not None:
        return "in S3"
    kind = network_file_system(folder)
    return None if kind is None else f"on a network file system ({kind})"
