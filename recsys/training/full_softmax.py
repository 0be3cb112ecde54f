"""An epoch's users in random order, each with all its positives against every item that it does not know.

Feeds `fit` where `training.negative_sampling` is all. Nothing is drawn: one matrix product scores a batch's users against the
whole catalogue, all positives of a user share its scores, and the sum over the free items stands for `training.n_negatives`
uniform draws, without their noise. Of a large catalogue each batch takes a random part.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from recsys.config.schema import Config
from recsys.config.sections import TrainingConfig
from recsys.data.interactions import Interactions
from recsys.kernels.lookup import square_norms
from recsys.kernels.ragged import expand
from recsys.kernels.softmax import full_softmax_loss
from recsys.kernels.tensors import as_tensor
from recsys.models import Model, SideName
from recsys.training.batches import parts_of_epoch
from recsys.training.contract import Relabel

MAX_ITEMS = 1 << 13
"""Items that a batch of users is scored against at most, its positives apart."""
MAX_SCORES = 1 << 22
"""Scores of a batch on average at most: some 16 MB, a few times over."""


@dataclass(frozen=True)
class UserBatch:
    """Users of one step with a score for each of W items, all int64 but `shift`.

    `user` (R,). `item` (W,): None for the whole catalogue in order. `row`, `column` (P,): the positives' places among the scores
    (R, W). `known` (K,): the places in the flat scores of what is no negative. `shift` (R,): log(n_negatives / free items), what
    turns a sum over the free items into one over `n_negatives` draws.
    """

    user: Tensor
    item: Tensor | None
    row: Tensor
    column: Tensor
    known: Tensor
    shift: Tensor

    @property
    def n_rows(self) -> int:
        """Positives."""
        return len(self.row)

    def relabel(self, user: Relabel, item: Relabel) -> Self:
        """The same with other ids for the users and the items."""
        (users,) = user(self.user)
        return replace(self, user=users, item=None if self.item is None else item(self.item)[0])

    def loss(self, model: Model, training: TrainingConfig) -> Tensor:
        """The mean over the positives of their loss and penalty, ||u||^2 + ||i||^2."""
        user, item = model.user_side(self.user), model.item_side(self.item)
        losses = full_softmax_loss(
            model.score(user, item), self.row, self.column, self.known, self.shift
        )
        if training.l2:
            of_user, of_item = (
                torch.stack([square_norms(rows) for rows in side.embeddings]).sum(0)
                for side in (user, item)
            )
            losses = losses + training.l2 * (
                of_user.index_select(0, self.row) + of_item.index_select(0, self.column)
            )
        return losses.mean()


@dataclass(frozen=True)
class UserRows:
    """What the epochs are made of, on the training's device.

    `active` (A,) int64: users with a positive. `positives`, `known`: the items of each user.
    """

    active: Tensor
    positives: "_ItemLists"
    known: "_ItemLists"
    n_items: int
    n_negatives: int
    batch_size: int

    @property
    def n_batches(self) -> int:
        """Batches of an epoch, at least one a part."""
        by_scores = math.ceil(len(self.active) * self.n_drawn / MAX_SCORES)
        return max(self.n_parts, math.ceil(len(self.positives.items) / self.batch_size), by_scores)

    @property
    def n_parts(self) -> int:
        """Parts that an epoch reports in."""
        return parts_of_epoch(len(self.positives.items))

    @property
    def n_drawn(self) -> int:
        """Items that a batch takes of the catalogue."""
        return min(self.n_items, MAX_ITEMS)

    @property
    def n_lookups(self) -> dict[SideName, int]:
        """Users of a batch, and items where it does not take all of them, about."""
        lookups: dict[SideName, int] = {"user": math.ceil(len(self.active) / self.n_batches)}
        if self.n_drawn < self.n_items:
            lookups["item"] = self.n_drawn + self.batch_size
        return lookups

    def shuffle(self, generator: torch.Generator) -> Tensor:
        """A random order of the users (A,), for an epoch."""
        return self.active[
            torch.randperm(len(self.active), generator=generator, device=self.active.device)
        ]

    def n_rows_of(self, order: Tensor, n_parts: int) -> int:
        """How many positives the first `n_parts` parts of an epoch hold."""
        n_users = self._cuts(order)[n_parts * self.n_batches // self.n_parts]
        return int(self.positives.counts[order[:n_users]].sum())

    def n_samples_of(self, order: Tensor, n_parts: int) -> int:
        """How many scores of users and items the first `n_parts` parts of an epoch train on."""
        return self._cuts(order)[n_parts * self.n_batches // self.n_parts] * self.n_drawn

    def batches(self, order: Tensor, part: int, generator: torch.Generator) -> Iterator[UserBatch]:
        """The batches of one part of an epoch, from 0, of about as many positives each; all parts hold every user once."""
        cuts = self._cuts(order)
        begin, end = (number * self.n_batches // self.n_parts for number in (part, part + 1))
        place = torch.empty(self.n_items, dtype=torch.int64, device=order.device)
        for batch in range(begin, end):
            # A user with more positives than a batch holds leaves the next one empty.
            if cuts[batch] < cuts[batch + 1]:
                yield self._batch(order[cuts[batch] : cuts[batch + 1]], place, generator)

    def _cuts(self, order: Tensor) -> list[int]:
        """Where each batch begins among the users, and where the last one ends."""
        ends = self.positives.counts[order].cumsum(0)
        wanted = (
            torch.arange(self.n_batches + 1, device=order.device)
            * len(self.positives.items)
            // self.n_batches
        )
        cuts: list[int] = torch.searchsorted(ends, wanted, right=True).tolist()
        return cuts

    def _batch(self, user: Tensor, place: Tensor, generator: torch.Generator) -> UserBatch:
        """The batch of users (R,); `place` (n_items,) is overwritten."""
        row, item = self.positives.of(user)
        known_row, known = self.known.of(user)
        n_drawn = self.n_drawn
        if n_drawn == self.n_items:
            return UserBatch(
                user,
                None,
                row,
                item,
                known_row * n_drawn + known,
                self._shift(known_row, len(user)),
            )
        drawn = torch.randperm(self.n_items, generator=generator, device=user.device)[:n_drawn]
        place.fill_(-1)[drawn] = torch.arange(n_drawn, device=user.device)
        is_drawn = place[known] >= 0
        known_row, known = known_row[is_drawn], place[known[is_drawn]]
        # Positives that were not drawn get a column of their own, which is nobody's negative.
        others: Tensor = torch.unique(item[place[item] < 0])
        width = n_drawn + len(others)
        place[others] = torch.arange(n_drawn, width, device=user.device)
        lines = torch.arange(len(user), device=user.device) * width
        no_negative = torch.cat(
            [lines[known_row] + known, (lines[:, None] + place[others]).reshape(-1)]
        )
        shift = self._shift(known_row, len(user))
        return UserBatch(user, torch.cat([drawn, others]), row, place[item], no_negative, shift)

    def _shift(self, known_row: Tensor, n_users: int) -> Tensor:
        """log(n_negatives / free items among those drawn) of each user (R,), given the users of the known ones (K,)."""
        n_free = self.n_drawn - torch.bincount(known_row, minlength=n_users)
        return math.log(self.n_negatives) - n_free.clamp(min=1).log()


@dataclass(frozen=True)
class _ItemLists:
    """Items of each user in one flat list: `starts`, `counts` (n_users,) int64, `items` (n,) int32."""

    starts: Tensor
    counts: Tensor
    items: Tensor

    def of(self, user: Tensor) -> tuple[Tensor, Tensor]:
        """All items of users (R,): the place of the user among them (n,) and the item (n,), both int64."""
        row, index = expand(self.starts[user], self.counts[user])
        return row, self.items[index].long()


def user_rows(config: Config, data: Interactions, device: str | torch.device) -> UserRows:
    """Put the data on `device`; it must have a positive."""
    user, item, known = (
        as_tensor(array, device) for array in (data.user, data.item, data.seen.items)
    )
    counts = torch.bincount(user, minlength=data.n_users)
    offsets = as_tensor(data.seen.offsets, device).long()
    return UserRows(
        active=counts.nonzero().squeeze(1),
        positives=_ItemLists(counts.cumsum(0) - counts, counts, item),
        known=_ItemLists(offsets[:-1], offsets.diff(), known),
        n_items=data.n_items,
        n_negatives=config.training.n_negatives,
        batch_size=config.training.batch_size,
    )
