"""Groups of settings: each setting with its type, its default, its bounds and one line of meaning.

Below `schema`, whose `Config` holds one of each group.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from recsys.config.components import LOSSES, METRICS, MODELS, PRUNERS, SAMPLERS, OneOf
from recsys.config.values import Column, Cutoffs, DatabaseUrl, Duration, Fraction, Url

DEFAULT_TRIALS = 30
"""Trials of a study that has neither a number of trials nor a time budget."""


class Section(BaseModel):
    """A frozen group of settings in which an unknown name is a mistake."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class FilesConfig(Section):
    """A split given as files."""

    train: str
    """File or folder with the training interactions."""
    validation: str | None = None
    """File or folder with the validation interactions; cut from train where absent."""
    test: str
    """File or folder with the test interactions."""


class ColumnsConfig(Section):
    """Which columns of the user's files hold what."""

    user: Column | None = None
    """Name, or position from 0, of the column with the user ids."""
    item: Column | None = None
    """Name, or position from 0, of the column with the item ids."""
    rating: Column | None = None
    """Name, or position from 0, of the column with the ratings."""
    timestamp: Column | None = None
    """Name, or position from 0, of the column with the times: numbers of any one unit, or dates."""
    title: Column | None = None
    """Name, or position from 0, of the column with the items' titles; the text none: no titles."""


class DataConfig(Section):
    """Which interactions, and how they are cut."""

    source: str = "ml-latest-small"
    """A data set of the catalog by name, or a path to files of one's own."""
    files: FilesConfig | None = None
    """A split given as files; takes the place of `data.source`."""
    columns: ColumnsConfig | None = None
    """Which columns hold users, items, ratings, times and titles, recognised from their names where absent; title: none for
    no titles."""
    positive_threshold: float = 4.0
    """A rating of at least this is a positive."""
    low_ratings: Literal["negative", "ignore"] = "negative"
    """Whether the bce loss trains on a rating below the threshold as an explicit negative."""
    min_user_interactions: int = Field(default=1, ge=1)
    """k-core: users with fewer interactions are removed, again and again until nothing changes."""
    min_item_interactions: int = Field(default=1, ge=1)
    """k-core: items with fewer interactions are removed, again and again until nothing changes."""
    split: Literal["leave_one_out", "random", "temporal"] = "leave_one_out"
    """How train, validation and test are cut where the data brings no split of its own."""
    test_fraction: Fraction = 0.2
    """Share of the interactions that a random or temporal split holds out for test."""
    validation_fraction: Fraction = 0.1
    """Share of the remaining interactions that a random or temporal split holds out for validation."""
    split_seed: int = Field(default=0, ge=0)
    """Seed of the split, of the fixed negatives and of the candidates."""
    n_negatives: int = Field(default=4, ge=1)
    """Fixed negatives that are written for each positive."""


class ModelConfig(Section):
    """What is trained."""

    name: Annotated[str, OneOf(MODELS)] = "neumf"
    """The variant of neural collaborative filtering."""
    embedding_dim: int = Field(default=16, ge=1)
    """Width of a user's and an item's embedding (of each of the two in neumf)."""
    n_layers: int = Field(default=3, ge=1)
    """Hidden layers of the tower in mlp and neumf, of widths 2d, d, d/2 and so on."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout behind each hidden layer of the tower."""
    bias: bool = True
    """Global, user and item intercepts."""
    init_std: float = Field(default=0.01, gt=0)
    """Standard deviation of the embeddings' normal initialisation."""


class TrainingConfig(Section):
    """How it is trained."""

    loss: Annotated[str, OneOf(LOSSES)] = "bce"
    """Binary cross-entropy, Bayesian personalised ranking, softmax, or squared errors over all pairs by least squares."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Adam's step size at the first epoch."""
    learning_rate_decay: Literal["linear", "cosine"] | None = None
    """How the step size falls towards 0 over `training.max_epochs`."""
    l2: float = Field(default=0.0, ge=0)
    """Weight of the squared embeddings in a row's loss: the user's plus the mean of its items', or with `negative_sampling: all`
    the user's plus the positive item's."""
    batch_size: int = Field(default=2048, ge=1)
    """Positives a step, each with its negatives."""
    n_negatives: int = Field(default=4, ge=1)
    """Negatives that a positive is trained with."""
    negative_sampling: Literal["uniform", "popularity", "all"] = "uniform"
    """How negatives are drawn among the user's free items; all: every free item counts as its share of `n_negatives` draws."""
    popularity_alpha: float = Field(default=0.75, ge=0)
    """Exponent of an item's popularity where negatives are drawn by popularity."""
    resample_negatives: bool = True
    """Draw new negatives each epoch; false: use the fixed ones of the processed data."""
    balance: bool = False
    """Let a positive weigh as much as its negatives together (bce only)."""
    max_epochs: int = Field(default=20, ge=1)
    """Epochs after which a training is complete."""
    patience: int | None = Field(default=None, ge=1)
    """Epochs without a better validation value after which a training ends."""


class EvaluationConfig(Section):
    """How held-out interactions are ranked and scored."""

    k: Cutoffs = (10,)
    """Lengths at which ranked lists are scored; the search goes by the first."""
    protocol: Literal["auto", "full", "sampled"] = "auto"
    """Rank a held-out item among all items or among candidates; auto: among the data's own candidates where it brings them."""
    n_candidates: int = Field(default=99, ge=1)
    """Distinct candidates that a held-out item is ranked among."""
    max_users: int | None = Field(default=None, ge=1)
    """Rank a seeded sample of this many users during the search; all in the end."""


class ResourcesConfig(Section):
    """What each trial gets."""

    cpu: float = Field(default=1.0, gt=0)
    """CPUs of a trial, which are its threads too."""
    gpu: float = Field(default=0.0, ge=0)
    """GPUs of a trial, a fraction where several share one."""
    custom: dict[str, Annotated[float, Field(gt=0)] | str] = {}
    """What else the node of a trial must have: a number is an amount of a custom resource, a text the value of a node's label."""
    max_failures: int = Field(default=3, ge=0)
    """How often a trial that died is started again."""
    preprocess_cpus: int | None = Field(default=None, ge=1)
    """CPUs that preparing the data takes at a time; all of the cluster where absent."""

    @field_validator("custom")
    @classmethod
    def _check_custom(cls, custom: dict[str, float | str]) -> dict[str, float | str]:
        for name in ("CPU", "GPU"):
            if name in custom:
                raise ValueError(
                    f"must leave CPUs and GPUs to their own settings, but got {name}. Set resources.{name.lower()}."
                )
        return custom


class StudyConfig(Section):
    """How the search goes."""

    n_trials: int | None = Field(default=None, ge=1)
    """Trials of the study; where absent 30, or with a time budget as many as fit."""
    time_budget: Duration | None = None
    """Seconds after which the search ends, or a duration such as 10m."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the sampler, from which each trial's own is derived."""
    metric: Annotated[str, OneOf(METRICS)] = "ndcg"
    """What is maximised: this metric on validation, at the first `evaluation.k`."""
    sampler: Annotated[str, OneOf(SAMPLERS)] = "tpe"
    """How Optuna proposes the next trial."""
    max_concurrent: int | None = Field(default=None, ge=1)
    """Trials at the same time; as many as the resources allow where absent."""
    keep_checkpoints: int = Field(default=3, ge=1)
    """Best trials of the study whose weights are kept."""
    pruner: Annotated[str, OneOf(PRUNERS)] = "asha"
    """How weak trials are stopped: successive halving (ASHA), Optuna's median or Hyperband pruner, or not at all."""
    grace_period: float = Field(default=1, gt=0)
    """Epochs that the pruner lets every trial run; long epochs report in parts, so that it may be a fraction."""
    reduction_factor: int = Field(default=3, ge=2)
    """ASHA lets about one in this many trials pass each rung."""
    storage: DatabaseUrl | None = None
    """Database for the record of the study, such as postgresql://USER@HOST/NAME; a file in the study's folder where absent."""

    @property
    def trial_limit(self) -> int | None:
        """Trials after which the search ends, None where the time budget alone ends it."""
        if self.n_trials is not None:
            return self.n_trials
        return DEFAULT_TRIALS if self.time_budget is None else None


class TrackingConfig(Section):
    """Where runs are logged."""

    uri: Url | None = None
    """MLflow's tracking store; the file mlflow.db of the directory where absent."""
    experiment: str = Field(default="recsys", min_length=1)
    """MLflow experiment that the runs are logged to."""
    required: bool = True
    """Whether a tracking store that cannot be reached at the start is an error."""


class ClusterConfig(Section):
    """Where the search runs."""

    address: str | None = None
    """Ray cluster to join; RAY_ADDRESS or this machine where absent."""
