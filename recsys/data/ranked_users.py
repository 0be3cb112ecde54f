"""How many users a search ranks, and how often: from the data alone, so that all trials compare.

`resolve.resolve` puts these numbers in place of `auto` in `evaluation.max_users` and
`evaluation.every`. Ranking then takes about a quarter of the time of training, unless the fewest
users cost more. Costs are in training samples, pairs of a user and an item, of the default model
(docs/decisions/0036-ranked-users.md).
"""

import math

from recsys.data.manifest import Manifest

RANKING_SHARE = 0.25
"""Time of ranking an epoch, as a share of training one."""
SAMPLES_PER_POSITIVE = 5
"""A training positive and the default number of negatives."""
ITEM_COST, SCANNED_POSITIVES = 0.01, 3.0
"""Samples that it costs to rank a held-out positive, for each item of the catalogue, and the number
of a user's positives beyond which more add nothing: all items are scored for the user anyway."""
CANDIDATE_COST = 0.4
"""Samples that it costs to score a candidate."""
MOST_USERS = 10_000
"""Users beyond which more say nothing: the standard deviation of NDCG@10 over users is at most
0.4, and its standard error then at most 0.004."""
FEWEST_USERS = 1_000
"""Users that are ranked at least, with a standard error of at most 0.013. If they cost more than
`RANKING_SHARE`, only some epochs are ranked."""
MOST_EPOCHS = 3
"""At least one epoch in this many is ranked: a pruner without values cannot prune."""


def choose_max_users(manifest: Manifest, n_candidates: int | None) -> int | None:
    """Return how many users to rank, None for all of them.

    `n_candidates`: candidates of a held-out positive; None if it is ranked among all items.
    """
    affordable = _budget(manifest) / _user_cost(manifest, n_candidates)
    n_users = min(max(int(affordable), FEWEST_USERS), MOST_USERS)
    return n_users if n_users < count_held_out_users(manifest) else None


def choose_every(manifest: Manifest, n_candidates: int | None, max_users: int | None) -> int:
    """Return how many epochs pass from one ranking to the next, of at most `max_users` users."""
    everyone = count_held_out_users(manifest)
    n_users = everyone if max_users is None else min(max_users, everyone)
    cost = n_users * _user_cost(manifest, n_candidates)
    return min(max(1, math.ceil(cost / _budget(manifest))), MOST_EPOCHS)


def _budget(manifest: Manifest) -> float:
    """Return how many samples ranking an epoch may cost."""
    return RANKING_SHARE * SAMPLES_PER_POSITIVE * manifest.n_train


def _user_cost(manifest: Manifest, n_candidates: int | None) -> float:
    """Return how many samples it costs to rank a user."""
    n_positives = manifest.n_validation / count_held_out_users(manifest)
    if n_candidates is not None:
        return CANDIDATE_COST * n_positives * (1 + n_candidates)
    return max(1.0, ITEM_COST * min(n_positives, SCANNED_POSITIVES) * manifest.n_items)


def count_held_out_users(manifest: Manifest) -> int:
    """Return the most users that validation can have, at least one.

    The manifest counts only those who are held out whole.
    """
    n_users = manifest.n_validation_users or manifest.n_users
    return max(1, min(n_users, manifest.n_validation))
