"""The order of a study's uploads, against a real server; each local copy is another machine's."""

import threading
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from ray.tune.experiment import Trial

from recsys.config.schema import Config, replace_values
from recsys.data.interactions import Interactions
from recsys.data.preprocessing.pipeline import prepare
from recsys.data.processed import load
from recsys.errors import InputError
from recsys.search.record import lease
from recsys.search.record.optuna_storage import JOURNAL
from recsys.search.record.origin import StudyOrigin
from recsys.search.record.study_folder import StudyFolder
from recsys.search.record.study_record import StudyRecord
from recsys.search.record.uploads import Uploads
from recsys.search.space.space_file import parse_space
from recsys.search.tuning import trainable
from recsys.search.tuning.messages import Report, message_of
from recsys.search.tuning.trainable import CHECKPOINT, TrialRunner
from recsys.search.tuning.trial_folders import TrialFolders
from recsys.storage.s3 import list_folder, open_folder, remove
from recsys.tracking.outbox import Outbox
from recsys.tracking.outbox_file import Note, Operation, read_outbox
from recsys.tracking.study_runs import OUTBOX
from recsys.training.fit import fit
from tests.small_search import SPACE

SEARCH_SPACE = parse_space(SPACE, "space.yaml")


def begin(place: str) -> tuple[Path, StudyRecord]:
    """Create a study `s`; return its folder and its record."""
    study = StudyFolder.find(open_folder(place), "s")
    study.create(Config(), SEARCH_SPACE, StudyOrigin())
    return study.path, study.resume(Config(), SEARCH_SPACE)


def test_mlflow_is_sent_only_what_s3_has(s3_place: str) -> None:
    study, record = begin(s3_place)
    sent: list[int] = []
    came = threading.Event()

    def send(operation: Operation, _doubtful: bool) -> Note:
        sent.append(operation["n"])
        came.set()
        return {}

    outbox = Outbox(study / OUTBOX, [], send, "nowhere", held=True)
    uploads = Uploads(study, outbox, threading.Event())
    done: list[str] = []
    outbox.append({"n": 1}, {"n": 2})
    record.ask()
    uploads.after_next(lambda: done.append("after"))
    assert not came.wait(0.5)
    assert done == []
    uploads.upload()
    assert came.wait(60)
    assert outbox.flush()
    assert (sent, done) == ([1, 2], ["after"])
    # Another machine finds both files, the record not older than the outbox. The notes that the
    # operations were sent follow with the next upload.
    there = StudyFolder.find(open_folder(s3_place), "s")
    assert [trial.state.name for trial in there.optuna_study().trials] == ["RUNNING", "WAITING"]
    assert [(kept.operation["n"], kept.note) for kept in read_outbox(there.path / OUTBOX)] == [
        (1, None),
        (2, None),
    ]
    with uploads:
        pass
    assert [
        kept.note
        for kept in read_outbox(StudyFolder.find(open_folder(s3_place), "s").path / OUTBOX)
    ] == [
        {"sent": 1},
        {"sent": 2},
    ]
    outbox.close()


def test_a_driver_that_lost_its_lease_uploads_nothing(s3_place: str) -> None:
    study, record = begin(s3_place)
    outbox = Outbox(study / OUTBOX, [], lambda _operation, _doubtful: {}, "nowhere", held=True)
    is_lost = threading.Event()
    with Uploads(study, outbox, is_lost) as uploads:
        record.ask()
        uploads.upload()
        is_lost.set()
        record.ask()
    outbox.close()
    there = StudyFolder.find(open_folder(s3_place), "s")
    assert [trial.state.name for trial in there.optuna_study().trials] == ["RUNNING", "WAITING"]


def test_a_last_line_without_end_is_cut_off(s3_place: str) -> None:
    study, record = begin(s3_place)
    outbox = Outbox(study / OUTBOX, [], lambda _operation, _doubtful: {}, "nowhere", held=True)
    outbox.append({"n": 1})
    record.ask()
    for name in (OUTBOX, JOURNAL):
        with (study / name).open("ab") as file:
            file.write(b'{"half')
    Uploads(study, outbox, threading.Event()).upload()
    outbox.close()
    there = StudyFolder.find(open_folder(s3_place), "s")
    again = there.resume(Config(), SEARCH_SPACE)
    assert [summary.state for summary in again.summaries()] == ["unfinished"]
    assert [kept.operation for kept in read_outbox(there.path / OUTBOX)] == [{"n": 1}]


def test_a_half_uploaded_study_does_not_exist(s3_place: str) -> None:
    study, _ = begin(s3_place)
    there = open_folder(s3_place)
    with pytest.raises(InputError, match=r"study: must be a new study, but got s, which exists"):
        StudyFolder.find(there, "s").require_new()
    # The record is uploaded last; here the process was killed before.
    remove(study / JOURNAL)
    StudyFolder.find(open_folder(s3_place), "s").require_new()


@pytest.fixture(scope="module")
def config(ratings: Path) -> Config:
    return replace_values(
        Config(),
        {"data.source": str(ratings), "training.max_epochs": 4, "training.batch_size": 128},
    )


@pytest.fixture(scope="module")
def data(ray_here: None, config: Config, tmp_path_factory: pytest.TempPathFactory) -> Interactions:
    return load(prepare(config, tmp_path_factory.mktemp("trial")), "validation", negatives=False)


def report(result: dict[str, Any]) -> Report:
    message = message_of(result)
    assert isinstance(message, Report)
    return message


def test_a_checkpoint_counts_once_the_record_has_it(
    s3_place: str, config: Config, data: Interactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainable, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(trainable, "CHECKPOINT_SHARE", 1e9)
    waiting: list[Any] = []
    study, record = begin(s3_place)
    folders = TrialFolders(study / "trials", record, 3, waiting.append)
    trial = Trial("none", config={"number": 0}, stub=True)

    def worker() -> Any:
        """Return a worker on another machine."""
        folder = open_folder(s3_place) / "studies" / "s" / "trials"
        folder.parent.mkdir(parents=True)
        make = tune.with_parameters(
            TrialRunner,
            data=[ray.put(data)],
            folder=str(folder),
            gpu_device="cpu",
        )
        given = {"number": 0, "seed": 11, "config": config.model_dump_json(), "pruning_steps": []}
        return make(config=given)

    first = worker()
    saved = [first.train() for _ in range(2)]
    assert [report(result).checkpoint for result in saved] == [
        f"{CHECKPOINT}.1",
        f"{CHECKPOINT}.2",
    ]
    assert report(worker().train()).epoch == 1  # no checkpoint is confirmed yet
    folders.on_trial_result(1, [], trial, saved[1])
    assert sorted(list_folder(study / "trials" / "0")) == [f"{CHECKPOINT}.1", f"{CHECKPOINT}.2"]
    for action in waiting:
        action()
    assert sorted(list_folder(study / "trials" / "0")) == [CHECKPOINT, f"{CHECKPOINT}.1"]
    reports = [report(second.train()) for second in [worker()] for _ in range(3)]
    expected = [(epoch.epoch, epoch.metrics["val_ndcg_at_10"]) for epoch in fit(config, data, 11)]
    assert [(each.epoch, each.metrics["val_ndcg_at_10"]) for each in reports] == expected[1:]


def test_a_study_has_one_driver(s3_place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "RENEWAL_SECONDS", 0.2)
    here, there = (open_folder(s3_place) / "s" for _ in range(2))
    for folder in (here, there):
        folder.mkdir(parents=True)
    with lease.hold(here):
        with (
            pytest.raises(InputError, match="must be searched by one process at a time"),
            lease.hold(there),
        ):
            pytest.fail("held by two")
        assert list_folder(there) == ["lease.json"]
    assert list_folder(there) == []
    with lease.hold(there):
        assert list_folder(here) == ["lease.json"]
