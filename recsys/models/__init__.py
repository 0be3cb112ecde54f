"""The variants of neural collaborative filtering, one file each, behind one call for training and ranking."""

import torch

from recsys.config.components import MODELS, code_of
from recsys.config.sections import ModelConfig
from recsys.models.contract import Model, Side, SideName


def build_model(
    config: ModelConfig, n_users: int, n_items: int, generator: torch.Generator
) -> Model:
    """Build the variant `config.name` on the CPU, its first weights drawn from `generator` (a CPU generator) alone."""
    build: type[Model] = code_of(MODELS[config.name].code)
    return build(config, n_users, n_items, generator)


__all__ = ["Model", "Side", "SideName", "build_model"]
