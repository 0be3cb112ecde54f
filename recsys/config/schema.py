"""The typed config tree: every setting of a run, each with its default, its bounds and one line of meaning.

The ground floor. A trial, a final training and a study are each described by one complete `Config`; the search space replaces
values at config paths such as `model.embedding_dim`, and the result is an ordinary config again.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    field_validator,
    model_validator,
)

from recsys.config.components import LOSSES, METRICS, MODELS, PRUNERS, SAMPLERS, OneOf
from recsys.errors import InputError
from recsys.storage.credentials import keep_password
from recsys.storage.databases import DATABASES, is_shared_database

_UNIT_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: object) -> object:
    """Turn `90s`, `10m`, `1h30m` into seconds; anything but text passes through unchanged.

    Raises:
        ValueError: if the text is not a sum of numbers with the units s, m, h or d.
    """
    if not isinstance(value, str):
        return value
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise ValueError(
            f"must be a duration, but got {value!r}. Write it as 90s, 10m, 1h30m or a number of seconds."
        )
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def _as_tuple(value: object) -> object:
    return (value,) if isinstance(value, int) else value


def _require_shared_database(url: str) -> str:
    if not is_shared_database(url):
        raise ValueError(
            f"must begin with {' or '.join(f'{name}://' for name in DATABASES)}, but got {url}. "
            "Without it the record is a file in the study's folder."
        )
    return url


Url = Annotated[str, AfterValidator(keep_password)]
DEFAULT_TRIALS = 30
"""Trials of a study that has neither a number of trials nor a time budget."""

Duration = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Cutoffs = Annotated[
    tuple[Annotated[int, Field(ge=1)], ...],
    Strict(False),
    BeforeValidator(_as_tuple),
    Field(min_length=1),
]
Column = str | int


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
    storage: Annotated[Url, AfterValidator(_require_shared_database)] | None = None
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


class Config(Section):
    """Everything that determines a run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    resources: ResourcesConfig = ResourcesConfig()
    study: StudyConfig = StudyConfig()
    tracking: TrackingConfig = TrackingConfig()
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _check_negatives(self) -> Self:
        training, data = self.training, self.data
        if not training.resample_negatives:
            if training.n_negatives > data.n_negatives:
                raise InputError(
                    "training.n_negatives",
                    f"must be at most data.n_negatives, {data.n_negatives}, without training.resample_negatives",
                    training.n_negatives,
                    "Raise data.n_negatives or resample.",
                )
            if training.negative_sampling != "uniform":
                raise InputError(
                    "training.negative_sampling",
                    "must be uniform without training.resample_negatives",
                    training.negative_sampling,
                    "Set training.resample_negatives to true.",
                )
        return self

    @model_validator(mode="after")
    def _check_loss(self) -> Self:
        training, model = self.training, self.model.name
        loss = LOSSES[training.loss]
        if loss.models is not None and model not in loss.models:
            raise InputError(
                "training.loss",
                f"must not be {training.loss} for the model {model}",
                training.loss,
                f"Set model.name to {' or '.join(loss.models)}.",
            )
        if training.negative_sampling == "all" and not loss.takes_all_items:
            losses = [name for name, entry in LOSSES.items() if entry.takes_all_items]
            raise InputError(
                "training.negative_sampling",
                f"must not be all with the loss {training.loss}",
                "all",
                f"Set training.loss to {' or '.join(losses)}.",
            )
        if training.negative_sampling == "all" and not MODELS[model].scores_by_product:
            models = [name for name, entry in MODELS.items() if entry.scores_by_product]
            raise InputError(
                "training.negative_sampling",
                f"must not be all for a model whose score is no inner product, {model}",
                "all",
                f"Set model.name to {' or '.join(models)}.",
            )
        return self

    @model_validator(mode="after")
    def _check_protocol(self) -> Self:
        if (
            self.evaluation.protocol == "sampled"
            and max(self.evaluation.k) > self.evaluation.n_candidates + 1
        ):
            raise InputError(
                "evaluation.k",
                f"must be at most evaluation.n_candidates + 1, {self.evaluation.n_candidates + 1}",
                f"{max(self.evaluation.k)}",
                "Lower it or raise evaluation.n_candidates.",
            )
        return self

    @property
    def metric_name(self) -> str:
        """The reported metric that the search maximises, such as `val_ndcg_at_10`."""
        return f"val_{self.study.metric}_at_{self.evaluation.k[0]}"


def replace_values(config: Config, values: Mapping[str, object]) -> Config:
    """A copy of `config` with the value at each config path replaced, validated as a whole.

    Raises:
        pydantic.ValidationError: if a path is unknown or a value is refused.
    """
    tree = config.model_dump()
    for path, value in values.items():
        set_value(tree, path, value)
    return Config.model_validate(tree)


def set_value(tree: dict[str, Any], path: str, value: object) -> None:
    """Put `value` at a dotted path of a nested dict, making the levels on the way."""
    *parents, leaf = path.split(".")
    for name in parents:
        child = tree.get(name)
        tree[name] = dict(child) if isinstance(child, Mapping) else {}
        tree = tree[name]
    tree[leaf] = value


def get_value(config: Config, path: str) -> Any:
    """The value at a config path such as `model.embedding_dim`."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def config_paths() -> tuple[str, ...]:
    """Every config path that holds a value, in the order of the tree."""
    return tuple(
        f"{section}.{name}"
        for section, field in Config.model_fields.items()
        for name in cast(type[Section], field.annotation).model_fields
    )
