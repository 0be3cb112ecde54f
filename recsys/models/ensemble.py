"""Ensemble: the weighted sum of the standardised scores of several trained models.

It is a model to ranking, evaluation, recommendation and saved models, but it is not trained: final
training makes it of members that are.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from recsys.models.contract import Model, Side


class Ensemble(Model):
    """Model with score = sum over members m of w_m (s_m(u, i) - mean_m(u)) / std_m(u).

    The scores of unlike losses have unlike scales. The mean and the standard deviation of a user's
    scores are constants of the user and the member, so a score is the same whichever items are
    ranked. The scores are not logits. The constructor takes models, not a config.
    """

    weights: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(
        self, members: Sequence[Model], weights: Tensor, mean: Tensor, scale: Tensor
    ) -> None:
        """Join members.

        Args:
            members: the models, of the same users and items.
            weights: their weights, (n_members,).
            mean: the mean of each user's scores by each member, (n_users, n_members).
            scale: the reciprocal of their standard deviation, (n_users, n_members); 0 where a
                member gives all items of a user the same score, and so says nothing.
        """
        super().__init__()
        self.members = nn.ModuleList(members)
        for name, values in (("weights", weights), ("mean", mean), ("scale", scale)):
            self.register_buffer(name, values)

    @classmethod
    def without_weights(cls, members: Sequence[Model], n_users: int) -> "Ensemble":
        """Return an ensemble whose tensors are to be loaded."""
        shape = n_users, len(members)
        return cls(members, torch.zeros(len(members)), torch.zeros(shape), torch.zeros(shape))

    def user_side(self, user: Tensor) -> Side:
        """Return the members' sides of users (B,), with the members' weights (B, n_members)."""
        scale = self.weights * self.scale[user]
        shift = -(scale * self.mean[user]).sum(1)
        return Side((), (scale,), shift, tuple(member.user_side(user) for member in self._models()))

    def item_side(self, item: Tensor | None) -> Side:
        """Return the members' sides of items (B, n) or (n,), of all for None."""
        return Side((), (), None, tuple(member.item_side(item) for member in self._models()))

    def score(self, user_side: Side, item_side: Side) -> Tensor:
        """Return the scores (B, n) of the sides of (B,) users and (B, n) or (n,) items."""
        (scale,), shift = user_side.factors, user_side.bias
        assert isinstance(scale, Tensor)
        assert shift is not None
        total = shift.unsqueeze(1)  # (B, 1)
        sides = zip(self._models(), user_side.members, item_side.members, strict=True)
        for column, (member, its_user, its_item) in enumerate(sides):
            total = total + scale[:, column : column + 1] * member.score(its_user, its_item)
        return total

    def _models(self) -> list[Model]:
        return cast(list[Model], list(self.members))
