"""Files of a training's state: what is in them, and which are refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from recsys.errors import InputError
from recsys.training.checkpoint import TrainingState
from tests.training.small_data import two_tastes
from tests.training.test_fit import make_config, run

BIASES = ("everywhere", "user", "item")


def test_the_names_of_the_tensors(tmp_path: Path) -> None:
    # Checkpoints of all versions have these names, so that each version reads those of the others.
    config, data = make_config({"name": "inner_product"}), two_tastes()
    (epoch,) = run(config, data, n_epochs=1)
    epoch.state.save(tmp_path / "state")
    names = ("users.weight", "items.weight", *(f"intercepts.{key}" for key in BIASES))
    kinds = ("model", "best", "step", "exp_avg", "exp_avg_sq")
    tensors = load_file(tmp_path / "state")
    assert tensors.keys() == {f"{kind}.{name}" for kind in kinds for name in names}
    state = TrainingState.load(tmp_path / "state", config, data.n_users, data.n_items, "cpu")
    for key in BIASES:
        weight = state.model.get_parameter(f"biases.{key}")
        assert torch.equal(weight, tensors[f"model.intercepts.{key}"])
        moment = state.adam.moments[weight]["exp_avg"]
        assert moment.abs().sum() > 0
        assert torch.equal(moment, tensors[f"exp_avg.intercepts.{key}"])


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-9], lambda _: b"not tensors", lambda _: b""]
)
def test_a_damaged_state_is_refused_by_name(damage: Any, tmp_path: Path) -> None:
    data, config = two_tastes(), make_config()
    (epoch,) = run(config, data, n_epochs=1)
    path = tmp_path / "state"
    epoch.state.save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"state: must be a saved training, but got"):
        TrainingState.load(path, config, data.n_users, data.n_items, "cpu")


def test_a_state_of_another_config_is_refused_and_a_missing_one_is_named(tmp_path: Path) -> None:
    data, config = two_tastes(), make_config()
    (epoch,) = run(config, data, n_epochs=1)
    epoch.state.save(tmp_path / "state")
    with pytest.raises(ValueError, match="must be a training of this config and data"):
        TrainingState.load(
            tmp_path / "state", make_config({"embedding_dim": 5}), data.n_users, data.n_items, "cpu"
        )
    with pytest.raises(InputError, match="nowhere: must be a saved training"):
        TrainingState.load(tmp_path / "nowhere", config, data.n_users, data.n_items, "cpu")
