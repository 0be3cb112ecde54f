"""The best unseen items of a user, by the scores of a model. Used by `serving`."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from recsys.data.negatives import UserItemIndex
from recsys.evaluation.ranking import order_key, score_unseen
from recsys.evaluation.scorers import USER_BLOCK, Scorer
from recsys.kernels.arrays import IntArray


@torch.inference_mode()
def top_items(
    scorer: Scorer, users: IntArray, seen: UserItemIndex, k: int
) -> Iterator[tuple[int, IntArray, npt.NDArray[np.float32]]]:
    """Yield each user with its k best unseen items (k,) and their scores (k,), best first.

    A user with fewer than k unseen items gets all of them.

    Raises:
        DivergenceError: if a score is not finite.
    """
    size = USER_BLOCK[scorer.device.type]
    for start in range(0, len(users), size):
        block = users[start : start + size]
        scores = score_unseen(scorer, block, seen)
        # `topk` breaks ties in its own way. It only finds the k-th best score here; the items at or
        # above it, which are more than k where scores are equal, are sorted by score and key.
        least = scores.topk(min(k, scores.shape[1]), dim=1).values[:, -1].cpu().numpy()
        for user, row, bound in zip(block.tolist(), scores.cpu().numpy(), least, strict=True):
            items = np.flatnonzero((row >= bound) & (row > -np.inf))
            items = items[np.lexsort((order_key(user, items), -row[items]))][:k]
            yield user, items, row[items]
