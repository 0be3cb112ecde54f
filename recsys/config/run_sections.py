"""Groups of settings that say how a search runs: its resources, trials, tracking and cluster."""

from typing import Annotated

from pydantic import Field, field_validator

from recsys.config.components import METRICS, PRUNERS, SAMPLERS, OneOf
from recsys.config.sections import Section
from recsys.config.values import DatabaseUrl, Duration, Url
from recsys.errors import InputError

DEFAULT_TRIALS = 30
"""Trials of a study with neither a number of trials nor a time budget."""


class ResourcesConfig(Section):
    """The resources of a trial, and of preprocessing."""

    cpu: float = Field(default=1.0, gt=0)
    """CPUs per trial, and its number of threads."""
    gpu: float = Field(default=0.0, ge=0)
    """GPUs per trial. With a fraction, several trials share one."""
    custom: dict[str, Annotated[float, Field(gt=0)] | str] = Field(default={})
    """Other requirements of a trial's node by name: a number is the amount of a custom resource, a
    string is the value of a node label."""
    max_failures: int = Field(default=3, ge=0)
    """Retries of a trial that ended with an error."""
    preprocess_cpus: int | None = Field(default=None, ge=1)
    """Maximum CPUs that preprocessing uses at a time. If absent, all CPUs of the cluster."""

    @field_validator("custom")
    @classmethod
    def _check_custom(cls, custom: dict[str, float | str]) -> dict[str, float | str]:
        for name in ("CPU", "GPU"):
            if name in custom:
                rule = "must leave CPUs and GPUs to their own settings"
                raise InputError.listing(
                    "", [f"{rule}, but got {name}. Set resources.{name.lower()}."]
                )
        return custom


class StudyConfig(Section):
    """The search."""

    n_trials: int | None = Field(default=None, ge=1)
    """Trials of the study. If absent: 30, or, with a time budget, as many as fit into it."""
    time_budget: Duration | None = None
    """Time after which the search ends: seconds, or a duration such as 10m. The epochs of the
    trials are planned to fit."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the sampler. The seed of each trial is derived from it."""
    metric: Annotated[str, OneOf(METRICS)] = "ndcg"
    """Metric that the search maximises, on validation and at the first `evaluation.k`."""
    sampler: Annotated[str, OneOf(SAMPLERS)] = "gp"
    """Sampler that proposes the configs: a Gaussian process (gp), which weighs the expected
    improvement and the cost, or Optuna's TPE, random search or quasi-random sequence (qmc)."""
    max_concurrent: int | None = Field(default=None, ge=1)
    """Maximum trials at a time. If absent, as many as the resources allow."""
    keep_checkpoints: int = Field(default=3, ge=1)
    """Number of best trials whose checkpoints are kept."""
    pruner: Annotated[str, OneOf(PRUNERS)] = "asha"
    """Rule that stops weak trials: successive halving (ASHA), Optuna's median or Hyperband pruner,
    or none."""
    grace_period: float | None = Field(default=None, gt=0)
    """Epochs before the pruner may stop a trial. If absent: a fifth of `training.max_epochs`, and
    at least one. May be a fraction, since trials report several times in a long epoch."""
    reduction_factor: int = Field(default=3, ge=2)
    """ASHA promotes about one in this many trials at each rung."""
    storage: DatabaseUrl | None = None
    """Database that stores the record of the study, such as postgresql://USER@HOST/NAME. If absent,
    a file in the study's folder."""

    @property
    def trial_limit(self) -> int | None:
        """Trials after which the search ends, None if only the time budget ends it."""
        if self.n_trials is not None:
            return self.n_trials
        return DEFAULT_TRIALS if self.time_budget is None else None


class TrackingConfig(Section):
    """The tracking of runs with MLflow."""

    uri: Url | None = None
    """MLflow tracking URI. If absent: MLFLOW_TRACKING_URI, or else mlflow.db in `--dir`."""
    experiment: str = Field(default="recsys", min_length=1)
    """MLflow experiment of the runs."""
    required: bool = True
    """Fail at the start if MLflow cannot be reached. If false, go without it."""


class ClusterConfig(Section):
    """The Ray cluster."""

    address: str | None = None
    """Address of a Ray cluster to join. If absent: RAY_ADDRESS, or else this machine."""
