"""Metrics: pure functions of the ranks of held-out items, and of scores with labels.

`ranks` (n,) are 0-based: the number of items that are ranked above the held-out one. `case` (n,)
groups them: ranks of an equal `case` are one case, such as the held-out items of a user. Without
it, each rank is a case of its own. A metric returns the value of each case, (n_cases,) by ascending
`case`; `evaluate` reports their mean.
"""

import math

import numpy as np
import numpy.typing as npt
from numpy.typing import ArrayLike

FloatArray = npt.NDArray[np.float64]


def ndcg(ranks: ArrayLike, k: int, case: ArrayLike | None = None) -> FloatArray:
    """Return the discounted gain within the first k, divided by the gain of the best order.

    Source: Jarvelin and Kekalainen 2002, ACM TOIS 20(4), with binary gains and the discount
    1 / log2(rank + 2).
    """
    rank, index, size = _group(ranks, k, case)
    gains = np.where(rank < k, 1 / np.log2(rank + 2), 0)
    best = np.concatenate([[0], np.cumsum(1 / np.log2(np.arange(k) + 2))])  # by the case's size
    values: FloatArray = _sum(gains, index, size) / best[np.minimum(size, k)]
    return values


def hit_rate(ranks: ArrayLike, k: int, case: ArrayLike | None = None) -> FloatArray:
    """Return 1 for a case with a held-out item within the first k, else 0."""
    rank, index, size = _group(ranks, k, case)
    return (_sum(rank < k, index, size) > 0).astype(np.float64)


def mrr(ranks: ArrayLike, k: int, case: ArrayLike | None = None) -> FloatArray:
    """Return the reciprocal 1-based rank of the best held-out item, 0 beyond the first k."""
    rank, index, size = _group(ranks, k, case)
    first = np.full(len(size), k, dtype=np.float64)
    np.minimum.at(first, index, rank)
    return np.where(first < k, 1 / (first + 1), 0)


def recall(ranks: ArrayLike, k: int, case: ArrayLike | None = None) -> FloatArray:
    """Return the share of a case's held-out items that are within the first k."""
    rank, index, size = _group(ranks, k, case)
    return _sum(rank < k, index, size) / size


def standard_error(values: FloatArray, cluster: npt.NDArray[np.integer]) -> float | None:
    """Return the standard error of the mean of values (n,), None with fewer than two clusters.

    Values of an equal `cluster` (n,) may depend on each other, such as the cases of one user. With
    one value in each, it is the standard deviation divided by the square root of n.

    Source: Cameron and Miller 2015, Journal of Human Resources 50(2), eq. 11, for a mean.
    """
    _, index = np.unique(cluster, return_inverse=True)
    sums = np.bincount(index, weights=values - values.mean())
    if len(sums) < 2:
        return None
    return math.sqrt(len(sums) / (len(sums) - 1) * float(np.sum(sums**2))) / len(values)


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Return the probability that a positive (label 1) scores above a negative (label 0).

    A tie counts as one half.

    Raises:
        ValueError: if there is no positive or no negative.

    Source: Hanley and McNeil 1982, Radiology 143(1).
    """
    scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels).astype(bool)
    positives, negatives = scores[labels], np.sort(scores[~labels])
    if len(positives) == 0 or len(negatives) == 0:
        counts = f"{len(positives)} and {len(negatives)}"
        raise ValueError(f"labels must have positives and negatives, but got {counts}.")
    # For each positive, the negatives below it, and those below or equal.
    below = np.searchsorted(negatives, positives, "left")
    not_above = np.searchsorted(negatives, positives, "right")
    return float(np.mean(below + not_above) / 2 / len(negatives))


def log_loss(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the mean binary cross-entropy of labels (n,) in {0, 1} given logits (n,), in nats."""
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels).astype(bool)
    return float(np.mean(np.logaddexp(0, np.where(labels, -logits, logits))))


def _group(
    ranks: ArrayLike, k: int, case: ArrayLike | None
) -> tuple[FloatArray, npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return the ranks as floats (n,), the index of each rank's case (n,), and the cases' sizes.

    Raises:
        ValueError: if there are no ranks or `ranks` has another shape; if k is below 1.
    """
    array = np.asarray(ranks, dtype=np.float64)
    if array.ndim != 1 or len(array) == 0:
        raise ValueError(
            f"ranks must be one-dimensional with at least one entry, but got shape {array.shape}."
        )
    if k < 1:
        raise ValueError(f"k must be at least 1, but got {k}.")
    if case is None:
        return array, np.arange(len(array)), np.ones(len(array), dtype=np.intp)
    _, index, size = np.unique(np.asarray(case), return_inverse=True, return_counts=True)
    return array, index, size


def _sum(
    values: npt.NDArray[np.generic], index: npt.NDArray[np.intp], size: npt.NDArray[np.intp]
) -> FloatArray:
    """Return the sum of the values (n,) of each case."""
    return np.bincount(index, weights=values, minlength=len(size)).astype(np.float64)
