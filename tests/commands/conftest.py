"""One final training for the tests of train, evaluate and recommend."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from recsys import train
from tests.commands.in_process import answer
from tests.conftest import Tuned


@pytest.fixture(scope="package")
def home(tuned: Tuned, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the study and the processed data.

    MLflow's store and its artifacts are those of `tuned`.
    """
    folder = tmp_path_factory.mktemp("home")
    for name in ("studies", "processed"):
        shutil.copytree(tuned.folder / name, folder / name)
    return folder


@pytest.fixture(scope="package")
def store(tuned: Tuned) -> list[str]:
    return ["--set", f"tracking.uri={tuned.uri}"]


@pytest.fixture(scope="package")
def trained(home: Path, store: list[str]) -> dict[str, Any]:
    """The answer of the final training of the best trial, with two seeds."""
    return answer(train.main, "--best-of", "first", "--seeds", 2, "--dir", home, *store)
