"""Environment variables that recsys sets for Ray, Tune and MLflow. No other module sets any.

The packages that import those libraries import this module first (`cluster`, `search.tuning`,
`tracking`), since some variables are read once, at import. The user's own values are kept.
"""

import os

_RAY = {
    # Ray that is started here listens on loopback, as it does by default on Windows and macOS. An
    # address given to `ray.init` does not do it: Ray resolves loopback to the network's address.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
_TUNE = {
    # The record, MLflow and `progress` replace Tune's own logs, console output and snapshots.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": str(10**9),
    # `search.tuning.run` handles signals itself.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_FORCE_TRIAL_CLEANUP_S": "5",
    # The searcher limits how many trials run. Tune's limit of one waiting trial would let a
    # cluster grow by one node at a time.
    "TUNE_MAX_PENDING_TRIALS_PG": str(10**6),
}
_MLFLOW = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # With MLflow's own 120 s and seven retries, a request to a server that hangs takes a quarter
    # of an hour. One retry comes at once, a second one after 4 s: too late for the outbox, which
    # waits 5 s at the end of a search and retries by itself.
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
}
_URI = "MLFLOW_TRACKING_URI"
_USER, _PASSWORD = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"

for _name, _value in (_RAY | _TUNE | _MLFLOW).items():
    os.environ.setdefault(_name, _value)


def mlflow_uri() -> str | None:
    """Return the tracking URI in the environment, None if there is none."""
    return os.environ.get(_URI)


def mlflow_login() -> tuple[str, str] | None:
    """Return user and password for MLflow's server, None if the environment has no user."""
    return (os.environ[_USER], os.environ.get(_PASSWORD, "")) if _USER in os.environ else None


def set_mlflow_login(user: str, password: str) -> None:
    """Set user and password in the environment, where MLflow's client reads them unseen."""
    os.environ[_USER], os.environ[_PASSWORD] = user, password
