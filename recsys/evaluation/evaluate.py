"""Evaluation of a scorer on held-out interactions: values by name, such as `ndcg_at_10` and `auc`.

Training and final training call it, for models and for baselines.
"""

import dataclasses

import numpy as np
import numpy.typing as npt
import torch

from recsys.config.components import METRICS, code_of
from recsys.config.schema import Config
from recsys.data.interactions import HeldOut, Interactions
from recsys.data.resolve import uses_candidates
from recsys.errors import InputError
from recsys.evaluation.metrics import auc, log_loss, standard_error
from recsys.evaluation.ranking import PAIR_BLOCK, rank_all, rank_among_candidates
from recsys.evaluation.scorers import ModelScorer, Scorer, check_finite
from recsys.kernels.arrays import IntArray
from recsys.kernels.tensors import as_tensor
from recsys.models.ensemble import Ensemble


def evaluate(scorer: Scorer, data: Interactions, config: Config) -> dict[str, float]:
    """Return each ranking metric at each `evaluation.k`, and the metrics of labelled pairs.

    The searched metric has its standard error over users beside it, as `ndcg_at_10_se`.
    Under the full protocol a case is a user with all its held-out positives; under the sampled
    protocol it is one positive. Where the data has labelled pairs, `auc` is added, and for a model
    that is no ensemble `log_loss`.

    Raises:
        InputError: if nothing is held out; if the protocol is sampled and there are no candidates.
        DivergenceError: if a score is not finite.
    """
    held_out = data.held_out
    if held_out is None or len(held_out.user) == 0:
        raise InputError(
            "evaluation",
            "must have at least one held-out positive",
            "0",
            "Hold out more or lower data.positive_threshold.",
        )
    if _ranks_candidates(held_out, config):
        ranks, case = rank_among_candidates(scorer, held_out), None
    else:
        ranks, case = rank_all(scorer, held_out, data.seen, max(config.evaluation.k)), held_out.user
    by_case = {
        f"{name}_at_{k}": code_of(metric.code)(ranks, k, case)
        for name, metric in METRICS.items()
        for k in config.evaluation.k
    }
    values = {name: float(np.mean(cases)) for name, cases in by_case.items()}
    users = held_out.user if case is None else np.unique(case)  # of each case
    error = standard_error(by_case[config.metric_name.removeprefix("val_")], users)
    if error is not None:
        values[config.error_name.removeprefix("val_")] = error
    if held_out.negatives is not None:
        scores, labels = score_labelled(scorer, held_out)
        values["auc"] = auc(scores, labels)
        # The scores of a baseline, an ensemble or a cosine are not logits.
        model = scorer.model if isinstance(scorer, ModelScorer) else None
        if model and not (isinstance(model, Ensemble) or model.has_cosine_scores):
            values["log_loss"] = log_loss(scores, labels)
    return values


def protocol_name(config: Config) -> str:
    """Return the name of a resolved config's protocol: `full`, or `sampled-N` with N candidates."""
    return (
        f"sampled-{config.evaluation.n_candidates}"
        if config.evaluation.protocol == "sampled"
        else "full"
    )


@torch.inference_mode()
def score_labelled(
    scorer: Scorer, held_out: HeldOut
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return the scores and labels of all labelled pairs, both (n_pairs,).

    Held-out positives have the label 1, their negatives and the held-out low ratings 0.

    Raises:
        DivergenceError: if a score is not finite.
    """
    assert held_out.negatives is not None
    items = np.column_stack([held_out.item, held_out.negatives])  # (n, 1 + n_negatives)
    rows = _score_rows(scorer, held_out.user, items)
    low = _score_rows(scorer, held_out.low_user, held_out.low_item[:, None])
    scores = np.concatenate([rows[:, 0], rows[:, 1:].ravel(), low.ravel()])
    return scores, np.arange(len(scores)) < len(rows)  # the positives are first


def sample_users(held_out: HeldOut, n_users: int, seed: int) -> HeldOut:
    """Return the held-out interactions of `n_users` users, drawn by `seed` without replacement."""
    users = np.unique(held_out.user)
    if len(users) <= n_users:
        return held_out
    drawn = np.random.default_rng(seed).choice(users, n_users, replace=False)
    kept, low = np.isin(held_out.user, drawn), np.isin(held_out.low_user, drawn)
    return dataclasses.replace(
        held_out,
        user=held_out.user[kept],
        item=held_out.item[kept],
        low_user=held_out.low_user[low],
        low_item=held_out.low_item[low],
        negatives=None if held_out.negatives is None else held_out.negatives[kept],
        candidates=None if held_out.candidates is None else held_out.candidates[kept],
    )


def _score_rows(scorer: Scorer, user: IntArray, item: IntArray) -> npt.NDArray[np.float32]:
    """Return the scores (m, n) of users (m,) and their items (m, n), some rows at a time."""
    scores = np.empty(item.shape, dtype=np.float32)
    size = max(1, PAIR_BLOCK // item.shape[1])
    for start in range(0, len(user), size):
        rows = slice(start, start + size)
        users, items = (
            as_tensor(array[rows].astype(np.int64), scorer.device) for array in (user, item)
        )
        scores[rows] = check_finite(scorer.score_pairs(users, items)).cpu().numpy()
    return scores


def _ranks_candidates(held_out: HeldOut, config: Config) -> bool:
    """Return whether held-out items are ranked among their candidates alone.

    Raises:
        InputError: if they are to be, and there are no candidates.
    """
    has_candidates = held_out.candidates is not None
    ranks_candidates = uses_candidates(config, has_candidates)
    if ranks_candidates and not has_candidates:
        raise InputError(
            "evaluation.protocol",
            "must be full for data without candidates",
            "sampled",
            "Preprocess the data again.",
        )
    return ranks_candidates
