"""Which trial of a study is trained: the best one, or one by its number.

Stands between the record of a study and final training. A trial is chosen by its validation value alone.
"""

from dataclasses import dataclass
from pathlib import Path

from recsys.config.schema import Config
from recsys.errors import InputError
from recsys.search.record.record import StudyRecord, trial_seed
from recsys.search.record.study_files import find_study, read_study
from recsys.search.record.summaries import TrialSummary, best_trial


@dataclass(frozen=True)
class Choice:
    """A config to train.

    `n_epochs`: as the search found it. `study`: the study it comes from. `study_run_id`: that study's run in MLflow, if any.
    All are None for a config of one's own.
    """

    name: str
    config: Config
    n_epochs: int | None
    seed: int
    study: str | None
    study_run_id: str | None


def choose_best(folder: Path, name: str, storage: str | None = None) -> Choice:
    """The best trial of a study. `storage`: the database of its record, where it is not the one in the study's config.

    Raises:
        InputError: if there is no such study; if no trial of it has a value.
    """
    record, config = read_study(find_study(folder, name), storage)
    best = best_trial(record.summaries())
    if best is None:
        raise InputError(
            "--best-of",
            "must be a study with a finished epoch",
            f"{name}, which has none",
            "Search again.",
        )
    return _choice(name, name, record, config, best)


def choose_trial(folder: Path, path: str, storage: str | None = None) -> Choice:
    """A trial by `STUDY/TRIAL`. `storage`: as for `choose_best`.

    Raises:
        InputError: if there is no such study; if there is no such trial, or it has no value.
    """
    name, _, number = path.rpartition("/")
    if not name or not number.isdecimal():
        raise InputError(
            "--trial",
            "must be STUDY/TRIAL",
            f"{path!r}",
            f"Write it as --trial {name or number or 'ncf'}/0.",
        )
    record, config = read_study(find_study(folder, name), storage)
    found = {summary.number: summary for summary in record.summaries()}
    summary = found.get(int(number))
    if summary is None or not summary.choosable:
        state = "no such trial" if summary is None else f"one that is {summary.state}"
        raise InputError(
            "--trial",
            f"must be a trial of {name} that may be chosen",
            state,
            f"There are {len(found)} trials.",
        )
    return _choice(f"{name}-{number}", name, record, config, summary)


def _choice(
    name: str, study: str, record: StudyRecord, config: Config, summary: TrialSummary
) -> Choice:
    seed = trial_seed(config.study.seed, summary.number)
    return Choice(name, record.config_of(summary.number), summary.epoch, seed, study, record.run_id)
