"""Choice of the trial that final training trains: the best one of a study, or one by its number.

Reads the record of the study. A trial is chosen by its validation value alone.
"""

from dataclasses import dataclass
from pathlib import Path

from recsys.config.schema import Config
from recsys.errors import Argument, InputError, naming
from recsys.search.record.study_folder import StudyFolder
from recsys.search.record.study_record import StudyRecord, trial_seed
from recsys.search.record.summaries import TrialSummary, best_trial


@dataclass(frozen=True)
class Choice:
    """A config to train.

    Attributes:
        name: the saved model's name.
        config: the config.
        n_epochs: the best epoch that the search found, None for a config without a study.
        seed: the seed of the first training.
        study: the study that the config comes from, if any.
        study_run_id: the MLflow run of that study, if any.
    """

    name: str
    config: Config
    n_epochs: int | None
    seed: int
    study: str | None
    study_run_id: str | None


def choose_best(folder: Path, study: str, storage: str | None = None) -> Choice:
    """Return the best trial of a study.

    Args:
        folder: the folder that holds `studies`.
        study: the study's name.
        storage: the database of its record, if it is not the one in the study's config.

    Raises:
        InputError: if there is no such study; if no trial of it has a value.
    """
    record, config = StudyFolder.find(folder, study).read(storage)
    best = best_trial(record.summaries())
    if best is None:
        raise InputError(
            Argument("study"),
            "must be a study with a finished epoch",
            f"{study}, which has none",
            "Search again.",
        )
    return _choice(study, study, record, config, best)


def choose_trial(folder: Path, trial: str, storage: str | None = None) -> Choice:
    """Return the trial `STUDY/NUMBER`; `folder` and `storage` as in `choose_best`.

    Raises:
        InputError: if there is no such study; if there is no such trial, or it has no value.
    """
    study, _, number = trial.rpartition("/")
    if not study or not number.isdecimal():
        raise InputError(
            Argument("trial"),
            "must be STUDY/TRIAL",
            f"{trial!r}",
            f"Write it as {study or number or 'ncf'}/0.",
        )
    with naming({"study": Argument("trial")}):
        found = StudyFolder.find(folder, study)
    record, config = found.read(storage)
    summaries = {summary.number: summary for summary in record.summaries()}
    summary = summaries.get(int(number))
    if summary is None or not summary.choosable:
        state = "no such trial" if summary is None else f"one that is {summary.state}"
        raise InputError(
            Argument("trial"),
            f"must be a trial of {study} that may be chosen",
            state,
            f"There are {len(summaries)} trials.",
        )
    return _choice(f"{study}-{number}", study, record, config, summary)


def _choice(
    name: str, study: str, record: StudyRecord, config: Config, summary: TrialSummary
) -> Choice:
    seed = trial_seed(config.study.seed, summary.number)
    return Choice(name, record.config_of(summary.number), summary.epoch, seed, study, record.run_id)
