"""The driver is killed, interrupted or started twice."""

import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from recsys.config.files import dump_yaml
from tests.faults.search_process import (
    SearchProcess,
    check_complete,
    n_reports,
    read_trials,
    resume_as_printed,
    started,
)
from tests.small_search import SPACE, ratings_csv

N_TRIALS, N_EPOCHS = 8, 6
RESUME = "resume it with: python -m recsys.tune --name s --resume"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "ratings.csv").write_text(ratings_csv())
    (tmp_path / "space.yaml").write_text(dump_yaml(SPACE))
    return tmp_path


def flags(folder: Path) -> list[object]:
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
        *("--set", "training.batch_size=32", "--set", "study.grace_period=2"),
        *("--set", "training.patience=null"),
    ]


def orphans(folder: Path) -> list[str]:
    """Return the command lines of a search's remaining processes: Ray's and the workers."""
    found = subprocess.run(
        ["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [line for line in found if str(folder) in line or "TrialRunner" in line]


def test_a_killed_driver_loses_nothing(cluster: str, folder: Path) -> None:
    with started(folder, *flags(folder)) as search:
        search.wait_until(lambda: n_reports(folder) >= 13)
        search.process.send_signal(signal.SIGKILL)
        search.process.wait()
    before = read_trials(folder)
    deadline = time.monotonic() + 30
    while left := orphans(folder):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    with started(folder, *flags(folder), "--resume", cluster=cluster) as search:
        code, answer, errors = search.end()
    assert code == 0, errors
    after = read_trials(folder)
    for trial in before:
        if trial.state.is_finished():
            assert after[trial.number] == trial
        assert trial.intermediate_values.items() <= after[trial.number].intermediate_values.items()
        assert trial.params.items() <= after[trial.number].params.items()
    assert len(answer["trials"]) == N_TRIALS
    check_complete(folder, answer["mlflow"]["tracking_uri"], N_TRIALS)


def has_reports(folder: Path, least: int) -> bool:
    return n_reports(folder) >= least


def test_an_interrupted_search_prints_the_command_that_resumes(cluster: str, folder: Path) -> None:
    arguments = flags(folder)
    for number, joined in ((signal.SIGINT, None), (signal.SIGTERM, cluster)):
        before = n_reports(folder)
        with started(folder, *arguments, cluster=joined) as search:
            search.wait_until(partial(has_reports, folder, before + 3))
            search.process.send_signal(number)
            code, answer, errors = search.end()
        assert code == 130
        assert answer["counts"]["unfinished"] > 0
        assert "Traceback" not in errors
        arguments = ["--resume"]
    resume_as_printed(errors, cluster)
    check_complete(folder, answer["mlflow"]["tracking_uri"], N_TRIALS)


def n_children(search: SearchProcess) -> int:
    """Return the number of processes that the driver has started: those of Ray."""
    return len(
        Path(f"/proc/{search.process.pid}/task/{search.process.pid}/children")
        .read_text(encoding="ascii")
        .split()
    )


def errors_of(search: SearchProcess) -> str:
    return search.errors.read_text(encoding="utf-8")


@pytest.mark.parametrize("moment", ["while Ray starts", "before the first trial"])
def test_sigterm_before_the_first_trial(folder: Path, moment: str) -> None:
    with started(folder, *flags(folder)) as search:
        reached = {
            "while Ray starts": lambda: n_children(search) > 0,
            "before the first trial": lambda: RESUME in errors_of(search),
        }
        search.wait_until(reached[moment])
        search.process.send_signal(signal.SIGTERM)
        code, _, errors = search.end()
    assert code == 130, errors
    assert "SIGTERM" not in errors
    last = errors.splitlines()[-1]
    if moment == "while Ray starts":
        assert last == "Interrupted before the search began; nothing was stored."
    else:
        assert last == f"Interrupted. The study is stored; {RESUME} --dir {folder}"


def test_a_finished_study_is_extended_and_started_by_the_same_command(
    cluster: str, folder: Path
) -> None:
    answers = []
    for n_trials in (2, 2, 3):
        more = ["--resume-auto", "--trials", n_trials]
        with started(folder, *flags(folder), *more, cluster=cluster) as search:
            code, answer, errors = search.end()
        assert code == 0, errors
        answers.append(answer)
    assert [len(answer["trials"]) for answer in answers] == [2, 2, 3]
    assert answers[0]["trials"] == answers[1]["trials"] == answers[2]["trials"][:2]
    assert answers[1]["busy_seconds"] == 0


def test_a_second_driver_is_refused(cluster: str, folder: Path) -> None:
    endless = ["--max-epochs", "100000", "--set", "study.grace_period=90000"]
    with started(folder, *flags(folder), *endless, cluster=cluster) as search:
        search.wait_until(lambda: n_reports(folder) >= 1)
        with started(folder, "--resume", cluster=cluster) as second:
            code, _, errors = second.end()
        assert code == 2
        rule = "must be searched by one process at a time"
        assert f"error: {folder / 'studies' / 's'}: {rule}, but got " in errors
        assert search.process.poll() is None
