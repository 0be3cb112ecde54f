"""Variants, each a model with a loss, and which of them can fold in users."""

from typing import NamedTuple

from recsys.config.components import LOSSES, MODELS

_READERS = " or ".join(name for name, entry in MODELS.items() if entry.reads_histories)
FOLDING_IN = f"model.name: {_READERS}, or with model.name: inner_product and training.loss: squared"
"""Settings of the variants that fold in users, as a remedy lists them."""


class Variant(NamedTuple):
    """A model with a loss, by their names."""

    model: str
    loss: str

    @property
    def folds_in_users(self) -> bool:
        """Whether a user's side follows from the user's history and the rest of the model."""
        is_solved = LOSSES[self.loss].solver == "least_squares"
        return is_solved or MODELS[self.model].reads_histories

    def __str__(self) -> str:
        return f"{self.model} with the loss {self.loss}"
