"""Attributes of trials that the study itself has: an ended trial takes none of its own."""

from typing import Any

import optuna

RUN_ID, ON_ALL_USERS = "mlflow_run_id", "on_all_users"
"""Names of the attributes: a trial's run in MLflow, and its value on all users."""


def get_attributes(study: optuna.Study, name: str) -> dict[int, Any]:
    """Return an attribute of all trials that have it, by number."""
    attributes, prefix = study.user_attrs, f"{name}:"
    keys = [key for key in attributes if key.startswith(prefix)]
    return {int(key.removeprefix(prefix)): attributes[key] for key in keys}


def set_attribute(study: optuna.Study, name: str, number: int, value: object) -> None:
    """Store an attribute of a trial."""
    study.set_user_attr(f"{name}:{number}", value)
