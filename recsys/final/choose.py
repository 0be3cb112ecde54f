"""Choice of what final training trains: the best trial of a study, one by its number, or several.

Reads the record of the study. A trial is chosen by its validation value alone.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from recsys.config.schema import Config
from recsys.errors import Argument, InputError, naming
from recsys.search.record.running_trial import trial_seed
from recsys.search.record.study_folder import StudyFolder
from recsys.search.record.study_record import StudyRecord
from recsys.search.record.summaries import TrialSummary, ranked

_OF_A_VARIANT = 2
"""Candidates of each variant that come before any third one of another."""


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
        trial: the trial's number in the study, None for a config without a study.
        seconds: how long the search trained for `n_epochs` epochs, None if not known.
    """

    name: str
    config: Config
    n_epochs: int | None
    seed: int
    study: str | None
    study_run_id: str | None
    trial: int | None = None
    seconds: float | None = None


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
    return _choice(study, study, record, config, _choosable(study, record)[0])


def choose_candidates(
    folder: Path, study: str, limit: int, storage: str | None = None
) -> list[Choice]:
    """Return trials of a study that an ensemble may have as members, at most `limit`.

    The best trial of the study comes first. All are in the order of `ranked`, except that two
    of a variant (a model with a loss) come before a third one of any other. `folder` and `storage`
    as in `choose_best`.

    Raises:
        InputError: as `choose_best`; if only one trial may be chosen.
    """
    record, config = StudyFolder.find(folder, study).read(storage)
    choices = [
        _choice(f"{study}-{summary.number}", study, record, config, summary)
        for summary in _choosable(study, record)
    ]
    if len(choices) == 1:
        raise InputError(
            Argument("study"),
            "must have at least 2 trials with a finished epoch for an ensemble",
            f"{study}, which has 1",
            "Search further.",
        )
    n_before: Counter[tuple[str, str]] = Counter()
    rounds = []
    for choice in choices:
        variant = choice.config.model.name, choice.config.training.loss
        rounds.append(n_before[variant] // _OF_A_VARIANT)
        n_before[variant] += 1
    return [choices[place] for place in sorted(range(len(choices)), key=rounds.__getitem__)][:limit]


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


def _choosable(study: str, record: StudyRecord) -> list[TrialSummary]:
    """Return the trials that may be chosen, the best first.

    Raises:
        InputError: if there is none.
    """
    found = [summary for summary in ranked(record.summaries()) if summary.choosable]
    if not found:
        raise InputError(
            Argument("study"),
            "must be a study with a finished epoch",
            f"{study}, which has none",
            "Search again.",
        )
    return found


def _choice(
    name: str, study: str, record: StudyRecord, config: Config, summary: TrialSummary
) -> Choice:
    epoch_seconds = summary.metrics.get("train_seconds")
    return Choice(
        name=name,
        config=record.config_of(summary.number),
        n_epochs=summary.epoch,
        seed=trial_seed(config.study.seed, summary.number),
        study=study,
        study_run_id=record.run_id,
        trial=summary.number,
        seconds=None if epoch_seconds is None else epoch_seconds * (summary.epoch or 0),
    )
