"""Members of an ensemble: candidates are trained on train, and selected by validation alone.

Then the members are trained on train and validation, as final training does it, and score test.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recsys.config.schema import Config
from recsys.console.verbosity import progress
from recsys.data.interactions import Interactions
from recsys.data.processed import Processed, load
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.scorers import scorer_of
from recsys.evaluation.standardise import Standardised, build_ensemble, standardise
from recsys.final import placement
from recsys.final.choose import Choice
from recsys.final.selection import Step, select, weights_of
from recsys.final.train import train_without_scores
from recsys.models.ensemble import Ensemble

Weights = Mapping[int, float]
"""Weight of each member, by its place among the candidates."""


@dataclass(frozen=True)
class ScoredEnsemble:
    """An ensemble, and how it and the study's best trial score on the split that is held out.

    Attributes:
        data: the interactions that its members were trained on.
        weights: the members' weights.
        ensemble: the members together.
        scores: the metrics of the ensemble.
        single: the metrics of the best trial, trained on the same interactions.
    """

    data: Interactions
    weights: Weights
    ensemble: Ensemble
    scores: dict[str, float]
    single: dict[str, float]


def select_members(
    candidates: Sequence[Choice], n_steps: int, processed: Processed
) -> tuple[list[Step], ScoredEnsemble]:
    """Train the candidates on train, and select members by the study's metric on validation.

    The first candidate is the study's best trial. The files of test are not opened.

    Raises:
        DivergenceError: if a training diverges.
    """
    config = candidates[0].config
    resamples = all(choice.config.training.resample_negatives for choice in candidates)
    data = load(processed, "validation", not resamples)
    library = _train(candidates, range(len(candidates)), data)
    metric = config.metric_name.removeprefix("val_")

    with progress("Selecting members") as show:

        def value_of(chosen: Sequence[int]) -> float:
            show(f"step {len(chosen)} of {n_steps}")
            ensemble = _build(library, weights_of(chosen))
            return evaluate(scorer_of(ensemble, data), data, config)[metric]

        steps = select(len(candidates), n_steps, value_of)
    return steps, _score(library, weights_of([step.candidate for step in steps]), data, config)


def train_members(
    candidates: Sequence[Choice], weights: Weights, processed: Processed
) -> ScoredEnsemble:
    """Train the members and the best trial on train and validation, and score test.

    Raises:
        DivergenceError: if a training diverges.
    """
    data = load(processed, "test", False)
    library = _train(candidates, sorted({0, *weights}), data)
    with progress("Scoring test"):
        return _score(library, weights, data, candidates[0].config)


def _train(
    candidates: Sequence[Choice], places: Sequence[int], data: Interactions
) -> dict[int, Standardised]:
    """Train the candidates at some places; return each one's model by its place."""
    trained = placement.run(train_without_scores, [candidates[place] for place in places], data)
    return {
        place: standardise(one.model, data.n_users, data.n_items)
        for place, one in zip(places, trained, strict=True)
    }


def _build(library: Mapping[int, Standardised], weights: Weights) -> Ensemble:
    return build_ensemble([library[place] for place in weights], list(weights.values()))


def _score(
    library: Mapping[int, Standardised], weights: Weights, data: Interactions, config: Config
) -> ScoredEnsemble:
    ensemble = _build(library, weights)
    scores, single = (
        evaluate(scorer_of(model, data), data, config) for model in (ensemble, library[0].model)
    )
    return ScoredEnsemble(data, weights, ensemble, scores, single)
