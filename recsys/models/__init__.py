"""Variants of neural collaborative filtering, one file each. `build_model` builds any of them."""

from collections.abc import Callable

import torch

from recsys.config.components import MODELS, code_of
from recsys.config.sections import ModelConfig
from recsys.models.contract import Model, Side, SideName


def build_model(
    config: ModelConfig, n_users: int, n_items: int, generator: torch.Generator
) -> Model:
    """Build the variant `config.name` on the CPU.

    Its initial weights are drawn from `generator`, a CPU generator, alone.
    """
    build: Callable[..., Model] = code_of(MODELS[config.name].code)
    return build(config, n_users, n_items, generator)


__all__ = ["Model", "Side", "SideName", "build_model"]
