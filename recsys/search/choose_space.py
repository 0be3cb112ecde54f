"""The search space of one run: from a file or the resumed study, with warm starts of other studies.

It imports neither Ray nor torch, so that a mistake in the space is reported at once.
"""

from collections.abc import Iterable
from pathlib import Path

from recsys.config.schema import Config, get_value
from recsys.config.variants import Variant
from recsys.console.verbosity import note
from recsys.data.manifest import Manifest
from recsys.errors import Argument, InputError
from recsys.search.record.study_folder import StudyFolder
from recsys.search.record.summaries import ranked
from recsys.search.space.search_space import SearchSpace
from recsys.search.space.space_file import read_effective_space
from recsys.search.space.validity import combinations

_N_WARM_STARTS = 5
NEED_TIMES = ("training.recency_half_life", "training.recency_floor")
"""Config paths that have no effect without times."""


def choose_space(
    study: StudyFolder,
    space_file: Path | None,
    config: Config,
    fixed_paths: Iterable[str],
    *,
    resume: bool,
) -> tuple[SearchSpace, set[str]]:
    """Return the space of a new or resumed study, and the config paths that are not searched.

    Args:
        study: the study.
        space_file: the search-space file; None for the resumed study's own space.
        config: the effective config.
        fixed_paths: config paths whose value the user has set.
        resume: whether the study exists and is resumed.

    Raises:
        InputError: if a new study exists already, or the resumed one does not; if a new study has
            no file; if there is no such file; if it has mistakes, with all of them.
    """
    fixed = set(fixed_paths)
    if resume:
        fixed |= set(study.origin(config.study.storage).fixed_paths)
        if space_file is None:
            return study.space(), fixed
    else:
        study.require_new()
    if space_file is None:
        raise InputError(
            Argument("space_file"), "must be given", "nothing", "Give a search-space file."
        )
    return read_effective_space(space_file, config, fixed), fixed


def for_data(space: SearchSpace, config: Config, data: Manifest) -> SearchSpace:
    """Return the space without the parameters that have no effect on a training with these data.

    They are the half-life and the floor of weights by recency if the data have no times, and the
    floor if there is no half-life. A note on standard error names each of them.

    Raises:
        InputError: if no parameter remains.
    """
    half_life, floor = NEED_TIMES
    if not data.has_times:
        reason, removed = "the data have no times", [half_life, floor]
        remedy = "Name the column of the times in data.columns.timestamp"
    elif half_life not in space.paths and get_value(config, half_life) is None:
        reason, removed = f"{half_life} is none", [floor]
        remedy = "Set or search it"
    else:
        return space
    removed = [path for path in removed if path in space.paths]
    if not removed:
        return space
    for path in removed:
        note(f"note: {path} is not searched: {reason}.")
    space = space.fixed(removed, config)
    if not space.domains:
        raise InputError(
            "search space",
            f"must have a parameter that has an effect if {reason}",
            "none",
            f"{remedy}, or choose another space.",
        )
    return space


def variants_of(space: SearchSpace, config: Config) -> list[Variant]:
    """Return the variants that trials may have, in order, each once.

    `config`: the base config, which has the values that are not searched.
    """
    paths = ("model.name", "training.loss")
    found = {
        Variant(*(str(point.get(path, get_value(config, path))) for path in paths))
        for point in combinations(space, paths)
    }
    return sorted(found)


def add_warm_starts(space: SearchSpace, source: StudyFolder, storage: str | None) -> SearchSpace:
    """Return the space with the points nearest to another study's best trials as first warm starts.

    Args:
        space: the space.
        source: the other study.
        storage: the database of its record, if it is not the one in its config.

    Raises:
        InputError: if there is no such study; if no trial of it has a value.
    """
    record, _ = source.read(storage)
    best = [summary for summary in ranked(record.summaries()) if summary.choosable][:_N_WARM_STARTS]
    if not best:
        raise InputError(
            Argument("study"),
            "must be a study with a finished epoch",
            f"{source.name}, which has none",
            "Choose another study.",
        )
    points = [space.point(record.config_of(summary.number)) for summary in best]
    return SearchSpace(space.domains, (*points, *space.warm_start))
