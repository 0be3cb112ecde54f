"""Users of an epoch in random order, each with all its positives against all its unseen items.

Called by `gradient_descent` if `training.negative_sampling` is all. Nothing is drawn: one matrix
product scores a batch's users against the whole catalogue, all positives of a user share its
scores, and the sum over the unseen items replaces `training.n_negatives` uniform draws, without
their noise. Of a large catalogue each batch takes a random sample of the items.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from recsys.config.components import MODELS
from recsys.config.schema import Config
from recsys.data.interactions import Interactions
from recsys.kernels.ragged import expand
from recsys.kernels.tensors import as_tensor
from recsys.models import SideName
from recsys.training.recency import recency_weights
from recsys.training.user_batch import UserBatch

MAX_ITEMS = 1 << 13
"""Most items that a batch of users is scored against, besides its positives."""
MAX_SCORES = 1 << 22
"""Most scores of an average batch: 16 MB, of which training holds a few copies."""


@dataclass(frozen=True)
class UserRows:
    """Users of all epochs, on the training's device.

    `active` (A,) int64: users with a positive. `positives`, `seen`: the items of each user.
    `weight` (P,): of the positives' losses, all 1 if None. `cutoff`: the first
    of `evaluation.k`, at most `n_items`.
    """

    active: Tensor
    positives: "_ItemLists"
    weight: Tensor | None
    seen: "_ItemLists"
    n_items: int
    n_negatives: int
    batch_size: int
    n_segments: int
    cutoff: int

    @property
    def top(self) -> int:
        """Rank among the drawn items that stands for rank `cutoff` in the catalogue."""
        return max(1, round(self.cutoff * self.n_drawn / self.n_items))

    @property
    def n_batches(self) -> int:
        """Batches of an epoch, at least one per segment."""
        by_scores = math.ceil(len(self.active) * self.n_drawn / MAX_SCORES)
        by_rows = math.ceil(len(self.positives.items) / self.batch_size)
        return max(self.n_segments, by_rows, by_scores)

    @property
    def n_drawn(self) -> int:
        """Items of the catalogue that a batch takes."""
        return min(self.n_items, MAX_ITEMS)

    @property
    def n_lookups(self) -> dict[SideName, int]:
        """Users of a batch, approximately, and its items unless it takes all of them."""
        lookups: dict[SideName, int] = {"user": math.ceil(len(self.active) / self.n_batches)}
        if self.n_drawn < self.n_items:
            lookups["item"] = self.n_drawn + self.batch_size
        return lookups

    def shuffle(self, generator: torch.Generator) -> Tensor:
        """Return a random order of the users (A,), for an epoch."""
        device = self.active.device
        return self.active[torch.randperm(len(self.active), generator=generator, device=device)]

    def n_rows_of(self, order: Tensor, n_segments: int) -> int:
        """Return the number of positives in the first `n_segments` segments of an epoch."""
        n_users = self._cuts(order)[n_segments * self.n_batches // self.n_segments]
        return int(self.positives.counts[order[:n_users]].sum())

    def n_samples_of(self, order: Tensor, n_segments: int) -> int:
        """Return the number of scores in the first `n_segments` segments of an epoch."""
        return self._cuts(order)[n_segments * self.n_batches // self.n_segments] * self.n_drawn

    def batches(
        self, order: Tensor, segment: int, generator: torch.Generator
    ) -> Iterator[UserBatch]:
        """Yield the batches of one segment of an epoch, counted from 0.

        They have about as many positives each. All segments together have every user once.
        """
        cuts = self._cuts(order)
        begin, end = (
            number * self.n_batches // self.n_segments for number in (segment, segment + 1)
        )
        column_of = torch.empty(self.n_items, dtype=torch.int64, device=order.device)
        for batch in range(begin, end):
            # A user with more positives than a batch takes leaves the next batch empty.
            if cuts[batch] < cuts[batch + 1]:
                yield self._batch(order[cuts[batch] : cuts[batch + 1]], column_of, generator)

    def _cuts(self, order: Tensor) -> list[int]:
        """Return the index of the first user of each batch, and the number of users."""
        ends = self.positives.counts[order].cumsum(0)
        batches = torch.arange(self.n_batches + 1, device=order.device)
        wanted = batches * len(self.positives.items) // self.n_batches
        cuts: list[int] = torch.searchsorted(ends, wanted, right=True).tolist()
        return cuts

    def _batch(self, user: Tensor, column_of: Tensor, generator: torch.Generator) -> UserBatch:
        """Return the batch of users (R,); `column_of` (n_items,) is overwritten."""
        row, index = self.positives.index(user)
        item = self.positives.items[index].long()
        weight = None if self.weight is None else self.weight[index]
        seen_row, seen_index = self.seen.index(user)
        seen = self.seen.items[seen_index].long()
        n_drawn = self.n_drawn
        if n_drawn == self.n_items:
            shift = self._shift(seen_row, len(user))
            excluded = seen_row * n_drawn + seen
            return UserBatch(user, None, row, item, weight, excluded, shift, n_drawn, self.top)
        drawn = torch.randperm(self.n_items, generator=generator, device=user.device)[:n_drawn]
        column_of.fill_(-1)[drawn] = torch.arange(n_drawn, device=user.device)
        is_drawn = column_of[seen] >= 0
        seen_row, seen_column = seen_row[is_drawn], column_of[seen[is_drawn]]
        # Positives that were not drawn get a column of their own, which is no user's negative.
        others: Tensor = torch.unique(item[column_of[item] < 0])
        width = n_drawn + len(others)
        column_of[others] = torch.arange(n_drawn, width, device=user.device)
        starts = torch.arange(len(user), device=user.device) * width  # of the rows (R, W)
        excluded = torch.cat(
            [starts[seen_row] + seen_column, (starts[:, None] + column_of[others]).reshape(-1)]
        )
        shift = self._shift(seen_row, len(user))
        column, items = column_of[item], torch.cat([drawn, others])
        return UserBatch(user, items, row, column, weight, excluded, shift, n_drawn, self.top)

    def _shift(self, seen_row: Tensor, n_users: int) -> Tensor:
        """Return log(n_negatives / drawn unseen items) of each user (R,).

        `seen_row` (K,) is the user of each drawn item that its user has seen.
        """
        n_unseen = self.n_drawn - torch.bincount(seen_row, minlength=n_users)
        return math.log(self.n_negatives) - n_unseen.clamp(min=1).log()


@dataclass(frozen=True)
class _ItemLists:
    """Items of each user in one flat list.

    `starts`, `counts` (n_users,) int64, `items` (n,) int32.
    """

    starts: Tensor
    counts: Tensor
    items: Tensor

    def index(self, user: Tensor) -> tuple[Tensor, Tensor]:
        """Return the items of users (R,): the user's and the item's index (n,), both int64."""
        return expand(self.starts[user], self.counts[user])


def user_rows(
    config: Config, data: Interactions, device: str | torch.device, n_segments: int
) -> UserRows:
    """Return the rows on `device`; the data must have a positive. `n_segments`: of an epoch.

    A model that reads histories is trained with equal weights. Its weights by recency apply when
    the users are encoded (`training.latents`).
    """
    user, item, seen = (
        as_tensor(array, device) for array in (data.user, data.item, data.seen.items)
    )
    counts = torch.bincount(user, minlength=data.n_users)
    reads_histories = MODELS[config.model.name].reads_histories
    recency = None if reads_histories else recency_weights(config.training, data)
    offsets = as_tensor(data.seen.offsets, device).long()
    return UserRows(
        active=counts.nonzero().squeeze(1),
        positives=_ItemLists(counts.cumsum(0) - counts, counts, item),
        weight=None if recency is None else as_tensor(recency, device),
        seen=_ItemLists(offsets[:-1], offsets.diff(), seen),
        n_items=data.n_items,
        n_negatives=config.training.n_negatives,
        batch_size=config.training.batch_size,
        n_segments=n_segments,
        cutoff=min(config.evaluation.k[0], data.n_items),
    )
