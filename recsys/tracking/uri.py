"""The tracking URI of MLflow's runs: which it is, and whether it can be reached.

Commands check it before they start any work, so this module does not import mlflow.
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
    """Return the tracking URI, without a password; `credentials.with_password` adds it.

    Returns:
        `tracking.uri`, else MLFLOW_TRACKING_URI, else a SQLite database in `folder`; None if
        SQLite cannot be used in that folder.

    Raises:
        InputError: if it is unclear where the password in MLFLOW_TRACKING_URI ends.
    """
    if config.tracking.uri is not None:
        return config.tracking.uri
    try:
        given = strip_password(mlflow_uri() or "")
    except InputError as error:
        raise InputError.listing("MLFLOW_TRACKING_URI", [str(error)]) from None
    return given or (None if _unfit_for_sqlite(folder) else f"sqlite:///{folder / 'mlflow.db'}")


def require_tracking_uri(config: Config, folder: Path) -> None:
    """Check that there is a tracking URI if `tracking.required` asks for one.

    Raises:
        InputError: if none is given and SQLite cannot be used in the folder; if the URI is also
            the database of the record.
    """
    uri = tracking_uri(config, folder)
    if uri is None and config.tracking.required:
        raise InputError(
            "tracking.uri",
            f"must be a server or a database where {folder} is {_unfit_for_sqlite(folder)}, "
            "since SQLite cannot be used there",
            "nothing",
            "Give http://HOST:PORT or postgresql://USER@HOST/NAME, or set tracking.required=false.",
        )
    storage = config.study.storage
    if uri is not None and storage is not None and uri == storage:
        raise InputError(
            "tracking.uri",
            "must be another database than study.storage",
            f"{uri} for both, in which MLflow and Optuna would mix up their tables",
            "Create another database.",
        )


def artifact_location(uri: str, folder: Path) -> str | None:
    """Return the URI of the runs' artifacts; None behind a server, which has a setting for it."""
    if not uri.startswith("sqlite:") and not is_shared_database(uri):
        return None
    return url_of(folder / "artifacts") or (folder / "artifacts").resolve().as_uri()


def log_in(uri: str) -> str:
    """Pass the user and password in a server's URL to MLflow's client; return the URL without."""
    url = urlsplit(uri)
    if url.scheme not in ("http", "https") or url.username is None:
        return uri
    set_mlflow_login(unquote(url.username), unquote(url.password or ""))
    return strip_password(uri)


def require_answer(uri: str) -> None:
    """Send one request to a server or a database; MLflow's client would retry for minutes.

    Raises:
        OSError: if it does not answer.
    """
    if is_shared_database(uri):
        ping(uri)
    elif urlsplit(uri).scheme in ("http", "https"):
        health = f"{uri.rstrip('/')}/health"
        requests.get(health, auth=mlflow_login(), timeout=_ANSWER_SECONDS).raise_for_status()


def _unfit_for_sqlite(folder: Path) -> str | None:
    """Return the reason why SQLite cannot be used in a folder, None if it can."""
    if url_of(folder) is not None:
        return "in S3"
    kind = network_file_system(folder)
    return None if kind is None else f"on a network file system ({kind})"
