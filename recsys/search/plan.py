"""Plan of a search: its config, space, data and slots, after all checks and before any file.

The tune command makes the plan, and `session` runs it.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import ray

from recsys.cluster.resources import Slots
from recsys.cluster.shared_paths import require_on_all_nodes
from recsys.config.schema import Config, get_value, replace_values
from recsys.console.verbosity import progress
from recsys.data.processed import Processed, load
from recsys.data.resolve import require_fold_in, resolve
from recsys.errors import Argument
from recsys.search.choose_space import for_data, variants_of
from recsys.search.ends import find_ends, sample_configs
from recsys.search.estimate import Prediction, estimate, expect_trials
from recsys.search.record.origin import StudyOrigin
from recsys.search.record.study_folder import StudyFolder
from recsys.search.record.study_record import StudyRecord
from recsys.search.space.search_space import SearchSpace
from recsys.search.tuning.measurement import measure_all
from recsys.search.tuning.pruning import make_pruner
from recsys.training.segments import count_segments

_SAMPLE_TRIALS = 3
_PATIENCE = 5
"""Epochs of `training.patience: auto` (docs/decisions/0051-patience-of-a-search.md)."""


@dataclass(frozen=True)
class Plan:
    """A search that has passed every check.

    `folder`: the folder of data, studies and runs. `slots`: how many trials may run at a time.
    `resume`: whether the study exists and is resumed.
    """

    study: StudyFolder
    folder: Path
    config: Config
    space: SearchSpace
    processed: Processed
    origin: StudyOrigin
    slots: Slots
    resume: bool


def make_plan(
    study: StudyFolder,
    folder: Path,
    config: Config,
    space: SearchSpace,
    processed: Processed,
    *,
    fixed_paths: Iterable[str] = (),
    resume: bool = False,
) -> Plan:
    """Check the folder and the requested resources on the connected cluster.

    A study that is resumed is compared with the config, the space and the data.

    Raises:
        InputError: if the config needs times and the data have none; if no parameter is left to
            search; if the data hold out whole users and a config cannot fold in users; if no node
            can meet the request; if a node does not see the folder; if the resumed study was
            created with another config, space or data.
    """
    if resume:
        config = _keep_choices(config, study.config())
    config = resolve(config, processed.manifest)
    if config.training.patience == "auto":
        config = replace_values(config, {"training.patience": _PATIENCE})
    space = for_data(space, config, processed.manifest)
    require_fold_in(variants_of(space, config), processed.manifest, "search space")
    require_on_all_nodes(Argument("folder"), folder.absolute())
    n_segments = count_segments(processed.manifest.n_train)
    origin = StudyOrigin(processed.fingerprint, n_segments, tuple(sorted(fixed_paths)))
    if resume:
        study.require_unchanged(config, space, origin)
    return Plan(study, folder, config, space, processed, origin, Slots(config), resume)


def _keep_choices(config: Config, stored: Config) -> Config:
    """Return the config with the study's own values where it has `auto`.

    Versions choose differently from the same data, and a study must treat all trials alike.
    """
    paths = ("evaluation.max_users", "evaluation.every", "training.patience")
    kept = {path: get_value(stored, path) for path in paths if get_value(config, path) == "auto"}
    return replace_values(config, kept)


def describe_plan(plan: Plan) -> dict[str, Any]:
    """Measure the ends of the space for some seconds, and return a dry run's answer.

    It has the config, sample trials, resources, the size of the data, the measured ends and an
    estimate of the search.

    Raises:
        InputError: if a file of the processed data is damaged; if the data has nothing to train on
            or to rank.
    """
    sampled = optuna.create_study(
        sampler=optuna.samplers.RandomSampler(seed=plan.config.study.seed)
    )
    plan.origin.store(sampled)
    record = StudyRecord(sampled, plan.config, plan.space)
    record.enqueue_first_points()
    counts = plan.processed.manifest.counts()
    cluster = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return {
        "study": plan.study.name,
        "config": plan.config.model_dump(mode="json"),
        "sample_trials": [record.summary(record.ask()[0]).params for _ in range(_SAMPLE_TRIALS)],
        "resources": {
            "cluster": {kind: cluster.get(kind, 0.0) for kind in ("CPU", "GPU")},
            "trial": {"cpu": plan.config.resources.cpu, "gpu": plan.config.resources.gpu},
            "concurrency": plan.slots.most,
        },
        "data": {
            "users": counts["n_users"],
            "items": counts["n_items"],
            "interactions": counts["n_interactions"],
        },
        **_measure(
            plan, make_pruner(record, plan.config).mean_share, cluster.get("memory", math.inf)
        ),
    }


def _measure(plan: Plan, share: float, memory: float) -> dict[str, Any]:
    """Return the measured ends of the space and the estimate of the search.

    `share`: share of its epochs that a trial trains on average. `memory`: bytes of the cluster.
    """
    config, sizes = plan.config, plan.processed.manifest
    data = ray.put(load(plan.processed, "validation", not config.training.resample_negatives))
    ends = find_ends(plan.space, config, sizes)
    with progress("Measuring the cheap and the dear end of the space"):
        measured = measure_all([end.config for end in ends], data, sizes)
    prediction = Prediction(
        [(end.config, of.epoch) for end, of in zip(ends, measured, strict=True)], sizes
    )
    slots = plan.slots.most
    trials = expect_trials(
        config,
        [*sample_configs(plan.space, config)],
        prediction,
        n_slots=slots,
        n_segments=plan.origin.n_segments,
        mean_share=share,
    )
    return {
        "measured": {
            name: {
                "params": end.point,
                "train_seconds": of.epoch.train,
                "rank_seconds": of.epoch.rank,
                "memory": of.memory,
            }
            for name, end, of in zip(("cheap", "dear"), ends, measured, strict=True)
        },
        "estimate": estimate(config, trials, measured[-1], n_slots=slots, memory=memory),
    }
