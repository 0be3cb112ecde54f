"""Models, losses, metrics, samplers and pruners by name: choices of a config, and their code.

A new one is its own code and one line here. The code is imported where it is used, so that a
config is read and checked without torch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pkgutil import resolve_name
from typing import Any, Literal

from pydantic_core import CoreSchema, PydanticCustomError, core_schema


@dataclass(frozen=True)
class ModelEntry:
    """A model and what its score allows.

    `code`: the class, a subclass of `recsys.models.contract.Model`. `scores_by_product`: the score
    is an inner product of the two sides, so that one matrix product scores users against all items.
    `takes_cosine`: `model.similarity` may be cosine. `has_tower`: it has at least one hidden layer
    on pairs of user and item. `reads_histories`: the user's side is computed from the user's
    positives (`recsys.models.histories.HistoryModel`).
    """

    code: str
    scores_by_product: bool = False
    takes_cosine: bool = False
    has_tower: bool = False
    reads_histories: bool = False


@dataclass(frozen=True)
class LossEntry:
    """A loss and what it needs.

    `code`: the function of a row's logits, (B, 1 + n) -> (B,); None if the solver needs
    none. `solver`: the algorithm that trains with it. `models`: the models that it trains, None for
    all. `takes_low_ratings`: low ratings are trained on as explicit negatives, each with the binary
    cross-entropy of label 0. `corrects_sampling`: the logarithm of the sampling probability is
    subtracted from the logits. `has_temperature`: it trains on cosines, divided by
    `training.temperature`. `can_balance`: `code` takes `positive_weight`, for
    `training.balance`. `full_code`: the function of users' logits for all items, for
    `training.negative_sampling: all`, with the arguments of `recsys.kernels.softmax`; None if the
    loss refuses it.
    """

    code: str | None
    solver: Literal["gradient_descent", "least_squares"] = "gradient_descent"
    models: tuple[str, ...] | None = None
    takes_low_ratings: bool = False
    corrects_sampling: bool = False
    has_temperature: bool = False
    can_balance: bool = False
    full_code: str | None = None


@dataclass(frozen=True)
class MetricEntry:
    """A metric of ranks: its title in tables, and its function (ranks, k, case) -> values."""

    title: str
    code: str


MODELS = {
    "inner_product": ModelEntry(
        "recsys.models.inner_product:InnerProduct", scores_by_product=True, takes_cosine=True
    ),
    "gmf": ModelEntry("recsys.models.gmf:GMF", scores_by_product=True, takes_cosine=True),
    "mlp": ModelEntry("recsys.models.mlp:MLP", has_tower=True),
    "neumf": ModelEntry("recsys.models.neumf:NeuMF", has_tower=True),
    "autoencoder": ModelEntry(
        "recsys.models.autoencoder:Autoencoder",
        scores_by_product=True,
        takes_cosine=True,
        reads_histories=True,
    ),
    "diffusion": ModelEntry(
        "recsys.models.diffusion:Diffusion", scores_by_product=True, reads_histories=True
    ),
    "rqvae": ModelEntry("recsys.models.rqvae:RQVAE", scores_by_product=True),
}
LOSSES = {
    "bce": LossEntry("recsys.training.losses:bce", takes_low_ratings=True, can_balance=True),
    "bpr": LossEntry("recsys.training.losses:bpr"),
    "softmax": LossEntry(
        "recsys.training.losses:softmax",
        corrects_sampling=True,
        has_temperature=True,
        full_code="recsys.kernels.softmax:full_softmax_loss",
    ),
    "squared": LossEntry(None, solver="least_squares", models=("inner_product",)),
}
METRICS = {
    "ndcg": MetricEntry("NDCG", "recsys.evaluation.metrics:ndcg"),
    "hit_rate": MetricEntry("HR", "recsys.evaluation.metrics:hit_rate"),
    "mrr": MetricEntry("MRR", "recsys.evaluation.metrics:mrr"),
    "recall": MetricEntry("Recall", "recsys.evaluation.metrics:recall"),
}


SAMPLERS = {
    "gp": "recsys.search.sampling.improvement:ExpectedImprovement",
    "tpe": "recsys.search.sampling.samplers:tpe",
    "random": "recsys.search.sampling.samplers:random",
    "qmc": "recsys.search.sampling.samplers:qmc",
}
"""Classes or functions of a seed, a study's record and the predicted costs of its trials that
return a sampler of Optuna's interface."""
PRUNERS = {
    "asha": "recsys.search.tuning.pruning:Asha",
    "median": "recsys.search.tuning.pruning:median",
    "hyperband": "recsys.search.tuning.pruning:hyperband",
    "none": "recsys.search.tuning.pruning:no_pruner",
}
"""Classes or functions of a study's record and its config that return a pruner."""


@cache
def code_of(path: str) -> Any:
    """Import and return the class or the function at `MODULE:NAME`."""
    return resolve_name(path)


@dataclass(frozen=True)
class OneOf:
    """Type annotation of a config field whose value is a name in a table."""

    table: Mapping[str, object]

    def __get_pydantic_core_schema__(
        self, source: Any, handler: Callable[[Any], CoreSchema]
    ) -> CoreSchema:
        """Return the schema of `source` behind a check of the name."""
        return core_schema.no_info_before_validator_function(self._check, handler(source))

    def _check(self, value: object) -> object:
        if not isinstance(value, str) or value not in self.table:
            expected = ", ".join(self.table)
            raise PydanticCustomError("literal_error", "one of {expected}", {"expected": expected})
        return value
