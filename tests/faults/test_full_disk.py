"""The disk of a study, or of MLflow, is full: a small file system in memory."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from recsys.config.files import dump_yaml
from recsys.search.record import lease
from tests.faults.search_process import check_complete, n_reports, resume_as_printed, started
from tests.mounts import mounted
from tests.search.record.test_lease import wait_for_renewals
from tests.small_search import SPACE, ratings_csv

N_TRIALS, N_EPOCHS = 4, 30
NO_ROOM = "(No space left on device|database or disk is full)"
WIDE = {
    "parameters": {
        "model.name": {"choices": ["inner_product"]},
        "model.embedding_dim": {"choices": [3000]},
        "training.learning_rate": {"low": 1e-3, "high": 3e-1, "log": True},
    }
}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 24 MB."""
    with mounted(tmp_path / "disk", "size=24m") as disk:
        yield disk


def flags(folder: Path, space: dict[str, Any], uri: str) -> list[object]:
    """The search, with its files in `folder`."""
    (folder / "space.yaml").write_text(dump_yaml(space))
    (folder / "ratings.csv").write_text(ratings_csv())
    return [
        *(
            "--space",
            folder / "space.yaml",
            "--data",
            folder / "ratings.csv",
            "--trials",
            N_TRIALS,
            "--max-epochs",
            N_EPOCHS,
        ),
        *(
            "--set",
            "training.batch_size=32",
            "--concurrent",
            1,
            "--set",
            "study.grace_period=10",
            "--set",
            "training.patience=null",
            "--set",
            f"tracking.uri={uri}",
        ),
    ]


def fill(file: Path, left: int) -> None:
    """Fill the disk except `left` bytes."""
    with file.open("wb", buffering=0) as stream:
        for size in (1 << 20, 4096):
            with suppress(OSError):
                while stream.write(bytes(size)) == size:
                    pass
        stream.truncate(max(0, stream.tell() - left))


@pytest.mark.parametrize(
    ("left", "space"),
    [
        # The driver cannot write the record.
        (0, SPACE),
        # A worker cannot write the weights of a model of 1.7 MB.
        (1 << 20, WIDE),
    ],
    ids=["driver", "worker"],
)
def test_a_search_ends_and_resumes_once_the_disk_has_space(
    cluster: str, disk: Path, left: int, space: dict[str, Any]
) -> None:
    study, uri = disk / "studies" / "s", f"sqlite:///{disk.parent / 'mlflow.db'}"
    with started(disk, *flags(disk, space, uri), errors_in=disk.parent, cluster=cluster) as search:
        search.wait_until(lambda: n_reports(disk) >= 5)
        fill(disk / "filler", left)
        code, _, errors = search.end()
    full = (
        f"error: {re.escape(str(disk))}: must have room to be written, "
        f"but got .*{NO_ROOM}.*. Free some."
    )
    check_error(full, code, errors)
    reports = n_reports(disk)
    if left == 0:
        # The disk is still full when the search is resumed.
        fill(disk / "more", 0)
        with started(disk, "--resume", errors_in=disk.parent, cluster=cluster) as search:
            code, _, errors = search.end()
        check_error(full, code, errors)
        assert n_reports(disk) == reports
        (disk / "more").unlink()
    (disk / "filler").unlink()
    # A process that is killed on a full disk leaves an incomplete line.
    with (study / "mlflow-outbox.jsonl").open("ab") as outbox:
        outbox.write(b'{"do": "metr')
    resume_as_printed(errors, cluster)
    check_complete(disk, uri, N_TRIALS)
    assert len(list((study / "trials").iterdir())) == 3


def test_the_disk_of_mlflow_is_full(cluster: str, disk: Path) -> None:
    folder, uri = disk.parent, f"sqlite:///{disk / 'mlflow.db'}"
    with started(folder, *flags(folder, SPACE, uri), cluster=cluster) as search:
        search.wait_until(lambda: n_reports(folder) >= 5)
        fill(disk / "filler", 0)
        code, answer, errors = search.end()
    assert code == 0, errors
    assert len(answer["trials"]) == N_TRIALS
    warnings = re.findall(f"MLflow at {re.escape(uri)} has no room left on its disk.*", errors)
    assert [bool(re.search(NO_ROOM, warning)) for warning in warnings] == [True, False]
    assert warnings[1].endswith("; resuming the study sends them.")
    with started(folder, "--resume", cluster=cluster) as search:
        code, _, errors = search.end()
    unreachable = "error: tracking.uri: must be a reachable MLflow store, but got "
    check_error(f"{unreachable}{re.escape(uri)}.*{NO_ROOM}.*", code, errors)
    (disk / "filler").unlink()
    with started(folder, "--resume", cluster=cluster) as search:
        code, again, errors = search.end()
    assert code == 0, errors
    assert again["trials"] == answer["trials"]
    check_complete(folder, uri, N_TRIALS)


def test_the_holder_of_a_lease_renews_it_on_a_full_disk(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.01)
    with lease.hold(disk):
        fill(disk / "filler", 0)
        wait_for_renewals(disk, 2)


def check_error(expected: str, code: int, errors: str) -> None:
    assert code == 1, errors
    *_, error, how_to_resume = errors.splitlines()
    assert re.fullmatch(expected, error), error
    assert how_to_resume.startswith(
        "The study is stored; resume it with: python -m recsys.tune --name s --resume"
    )
    assert "Traceback" not in errors
