import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from recsys.config.files import dump_yaml
from recsys.config.schema import Config
from tests.s3_server import BUCKET, running_s3
from tests.small_search import SPACE, ratings_csv

# The same examples in each run, however slow the machine; `make fuzz` looks for new ones.
settings.register_profile("tests", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("fuzz", deadline=None, max_examples=5_000, print_blob=True)
settings.load_profile("tests")

SERVERS = ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "RECSYS_STUDY_STORAGE", "RECSYS_TRACKING_URI")


for _name in SERVERS:
    os.environ.pop(_name, None)


@pytest.fixture(autouse=True)
def _no_servers() -> Iterator[None]:
    """Keep tests away from the user's own servers, and from those that an earlier test set.

    The variables are removed after each test, because a module's fixtures, which may set them, run
    before those of its tests.
    """
    yield
    for name in SERVERS:
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def ray_here() -> Iterator[None]:
    """Ray on this machine, started once for all tests that need it."""
    import ray

    from recsys.cluster.connection import connect

    connect(Config())
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def s3_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of clients of an S3 server, set in this process for a module's tests."""
    with running_s3(tmp_path_factory.mktemp("s3")) as found, pytest.MonkeyPatch.context() as patch:
        for name, value in found.items():
            patch.setenv(name, value)
        yield found


@pytest.fixture
def s3_place(s3_environment: dict[str, str], request: pytest.FixtureRequest) -> str:
    """A test's own URL in S3; each `open_folder` of it acts as another machine's copy."""
    return f"s3://{BUCKET}/deep/{request.node.name}"


@pytest.fixture(scope="session")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the ratings of `small_search`."""
    path = tmp_path_factory.mktemp("data") / "ratings.csv"
    path.write_text(ratings_csv())
    return path


@dataclass(frozen=True)
class Tuned:
    """A run of `python -m recsys.tune` in `folder`: its JSON output and its standard error."""

    folder: Path
    answer: dict[str, Any]
    errors: str

    @property
    def study_folder(self) -> Path:
        return self.folder / "studies" / "first"

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"


@pytest.fixture(scope="session")
def tuned(ratings: Path, tmp_path_factory: pytest.TempPathFactory) -> Tuned:
    """One real search for many tests: 7 trials of at most 4 epochs, 2 at a time."""
    folder = tmp_path_factory.mktemp("tuned")
    (folder / "space.yaml").write_text(dump_yaml(SPACE))
    flags = (
        "--name first --trials 7 --max-epochs 4 --concurrent 2 --set training.batch_size=128 --json"
    )
    paths = ["--space", str(folder / "space.yaml"), "--data", str(ratings), "--dir", str(folder)]
    command = [sys.executable, "-m", "recsys.tune", *paths, *flags.split()]
    env = {name: value for name, value in os.environ.items() if name not in SERVERS}
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return Tuned(folder, json.loads(done.stdout), done.stderr)
