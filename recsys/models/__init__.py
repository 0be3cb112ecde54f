"""The variants of neural collaborative filtering, one file each, behind one call for training and ranking."""

import torch

from recsys.config.schema import ModelConfig
from recsys.models.contract import Model, Side, SideName
from recsys.models.gmf import GMF
from recsys.models.inner_product import InnerProduct
from recsys.models.mlp import MLP
from recsys.models.neumf import NeuMF

MODELS: dict[str, type[Model]] = {
    "inner_product": InnerProduct,
    "gmf": GMF,
    "mlp": MLP,
    "neumf": NeuMF,
}


def build_model(
    config: ModelConfig, n_users: int, n_items: int, generator: torch.Generator
) -> Model:
    """Build the variant `config.name` on the CPU, its first weights drawn from `generator` (a CPU generator) alone."""
    return MODELS[config.name](config, n_users, n_items, generator)


__all__ = ["MODELS", "Model", "Side", "SideName", "build_model"]
