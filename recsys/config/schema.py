"""The config of a run, its checks across groups, and functions on config paths.

A trial, a final training and a study are each described by one complete `Config`. The search space
replaces values at config paths such as `model.embedding_dim`; the result is an ordinary config.
"""

from collections.abc import Callable, Mapping
from typing import Any, Self, TypeVar, cast

from pydantic import model_validator

from recsys.config.components import LOSSES, MODELS
from recsys.config.run_sections import (
    ClusterConfig,
    ResourcesConfig,
    StudyConfig,
    TrackingConfig,
)
from recsys.config.sections import (
    DataConfig,
    EvaluationConfig,
    ModelConfig,
    Section,
    TrainingConfig,
)
from recsys.config.variants import Variant
from recsys.errors import InputError

_E = TypeVar("_E")
GRACE_SHARE = 0.2
"""Share of its epochs that a trial trains before it may be pruned (docs/decisions/0042)."""


class Config(Section):
    """Complete config of a run."""

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
        if training.resample_negatives:
            return self
        limit = data.n_negatives
        if training.n_negatives > limit:
            raise InputError(
                "training.n_negatives",
                f"must be at most data.n_negatives, {limit}, without training.resample_negatives",
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
        if training.negative_sampling == "all" and loss.full_code is None:
            raise InputError(
                "training.negative_sampling",
                f"must not be all with the loss {training.loss}",
                "all",
                f"Set training.loss to {_names(LOSSES, lambda e: e.full_code is not None)}.",
            )
        if training.negative_sampling == "all" and not MODELS[model].scores_by_product:
            raise InputError(
                "training.negative_sampling",
                f"must not be all for a model whose score is no inner product, {model}",
                "all",
                f"Set model.name to {_names(MODELS, lambda e: e.scores_by_product)}.",
            )
        return self

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        training, model = self.training, self.model
        entry = MODELS[model.name]
        if entry.has_tower and model.n_layers < 1:
            raise InputError(
                "model.n_layers",
                f"must be at least 1 for the model {model.name}",
                model.n_layers,
                "Raise it.",
            )
        if entry.reads_histories and training.negative_sampling != "all":
            raise InputError(
                "training.negative_sampling",
                f"must be all for a model that reads users' histories, {model.name}",
                training.negative_sampling,
                "Set it to all, and training.loss to"
                f" {_names(LOSSES, lambda e: e.full_code is not None)}.",
            )
        return self

    @model_validator(mode="after")
    def _check_similarity(self) -> Self:
        training, model = self.training, self.model
        if model.similarity == "cosine" and not MODELS[model.name].takes_cosine:
            raise InputError(
                "model.similarity",
                f"must be dot for the model {model.name}",
                "cosine",
                f"Set model.name to {_names(MODELS, lambda e: e.takes_cosine)}.",
            )
        if model.similarity == "cosine" and not LOSSES[training.loss].has_temperature:
            raise InputError(
                "model.similarity",
                f"must be dot with the loss {training.loss}",
                "cosine",
                f"Set training.loss to {_names(LOSSES, lambda e: e.has_temperature)}.",
            )
        return self

    @model_validator(mode="after")
    def _check_top_k_weight(self) -> Self:
        training = self.training
        if training.top_k_weight is not None and training.negative_sampling != "all":
            raise InputError(
                "training.top_k_weight",
                f"must be none with training.negative_sampling: {training.negative_sampling}",
                training.top_k_weight,
                "Set training.negative_sampling to all.",
            )
        return self

    @model_validator(mode="after")
    def _check_protocol(self) -> Self:
        limit, longest = self.evaluation.n_candidates + 1, max(self.evaluation.k)
        if self.evaluation.protocol == "sampled" and longest > limit:
            raise InputError(
                "evaluation.k",
                f"must be at most evaluation.n_candidates + 1, {limit}",
                longest,
                "Lower it or raise evaluation.n_candidates.",
            )
        return self

    @property
    def variant(self) -> Variant:
        """The model with the loss."""
        return Variant(self.model.name, self.training.loss)

    @property
    def metric_name(self) -> str:
        """Name of the reported metric that the search maximises, such as `val_ndcg_at_10`."""
        return f"val_{self.study.metric}_at_{self.evaluation.k[0]}"

    @property
    def grace_epochs(self) -> float:
        """Epochs before the pruner may stop a trial."""
        if self.study.grace_period is not None:
            return self.study.grace_period
        return max(1.0, GRACE_SHARE * self.training.max_epochs)

    @property
    def error_name(self) -> str:
        """Name of the standard error of `metric_name`, such as `val_ndcg_at_10_se`."""
        return f"{self.metric_name}_se"


def _names(table: Mapping[str, _E], has: Callable[[_E], bool]) -> str:
    """Return the names of the entries that have a property, as a remedy lists them."""
    return " or ".join(name for name, entry in table.items() if has(entry))


def replace_values(config: Config, values: Mapping[str, object]) -> Config:
    """Return a copy of `config` with the value at each config path replaced.

    Raises:
        pydantic.ValidationError: if a path is unknown, or a value or the whole is refused.
    """
    tree = config.model_dump()
    for path, value in values.items():
        set_value(tree, path, value)
    return Config.model_validate(tree)


def set_value(tree: dict[str, Any], path: str, value: object) -> None:
    """Set the value at a dotted path of a nested dict, with new dicts for missing levels."""
    *parents, leaf = path.split(".")
    for name in parents:
        child = tree.get(name)
        tree[name] = dict(child) if isinstance(child, Mapping) else {}
        tree = tree[name]
    tree[leaf] = value


def get_value(config: Config, path: str) -> Any:
    """Return the value at a config path such as `model.embedding_dim`."""
    value: Any = config
    for name in path.split("."):
        value = getattr(value, name)
    return value


def config_paths() -> tuple[str, ...]:
    """Return every config path, in the order of the tree."""
    return tuple(
        f"{section}.{name}"
        for section, field in Config.model_fields.items()
        for name in cast(type[Section], field.annotation).model_fields
    )
