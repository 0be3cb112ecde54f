"""Connections to MLflow's tracking store, which is checked before it is used."""

import logging
from pathlib import Path

from alembic.util.exc import CommandError
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import DatabaseError

from recsys.config.schema import Config
from recsys.errors import InputError
from recsys.storage.credentials import with_password, without_passwords
from recsys.storage.files import file_lock, write_atomically
from recsys.storage.path_errors import disk_full_reason
from recsys.tracking.runs import Tracking
from recsys.tracking.uri import (
    artifact_location,
    log_in,
    require_answer,
    require_tracking_uri,
    tracking_uri,
)

_log = logging.getLogger(__name__)


def open_tracking(config: Config, folder: Path) -> Tracking | None:
    """Connect to the tracking store as `connect` does, or warn if it is not required.

    Returns:
        The connection; None if the store cannot be reached and `tracking.required` is false.

    Raises:
        InputError: if `tracking.required` is true and there is no tracking URI, or the store cannot
            be reached or is damaged; if the URI is also the database of the record.
    """
    require_tracking_uri(config, folder)
    uri = tracking_uri(config, folder) or "no given place"
    try:
        return connect(config, folder)
    except (MlflowException, OSError) as error:
        full = disk_full_reason(error)
        reason = full or without_passwords(" ".join(str(error).split()))
        if config.tracking.required:
            remedy = "Free some room on its disk" if full else "Start its server"
            raise InputError(
                "tracking.uri",
                "must be a reachable MLflow store",
                f"{uri} ({reason})",
                f"{remedy}, or set tracking.required=false to run without it.",
            ) from error
    _log.warning("MLflow at %s cannot be reached (%s): the command does not wait.", uri, reason)
    return None


def connect(config: Config, folder: Path) -> Tracking:
    """Connect to the tracking store; create the folder's database and the experiment if missing.

    Raises:
        OSError: if the store does not answer, its driver is not installed, or there is no tracking
            URI or a malformed one.
        MlflowException: if it is no store, or answers that it cannot work.
    """
    uri = tracking_uri(config, folder)
    if uri is None:
        raise ConnectionError(f"tracking.uri is not set, and {folder} cannot hold a database")
    try:
        uri = log_in(with_password(uri))
    except ValueError as error:
        raise ConnectionError(str(error)) from None
    require_answer(uri)
    folder.mkdir(parents=True, exist_ok=True)
    if uri.startswith("sqlite:///"):
        _create_database(Path(uri.removeprefix("sqlite:///")))
    try:
        return Tracking(uri, config.tracking.experiment, artifact_location(uri, folder))
    except CommandError as error:
        raise ConnectionError(
            f"it has the tables of another version or of another program, {error}"
        ) from error
    except ImportError as error:
        raise ConnectionError(str(error)) from None
    except DatabaseError as error:
        raise ConnectionError(f"it is damaged, or cannot be used: {error.orig}") from error


def _create_database(path: Path) -> None:
    """Create a database that does not exist, in one process at a time.

    It appears with all its tables: MLflow does not open one in which some are missing.

    Raises:
        OSError: if the path names no file, or one that cannot be written.
    """
    if not path.name:
        raise ConnectionError("it names no file")
    with file_lock(path):
        if not path.exists():
            with write_atomically(path) as partial:
                MlflowClient(tracking_uri=f"sqlite:///{partial}").search_experiments(max_results=1)
