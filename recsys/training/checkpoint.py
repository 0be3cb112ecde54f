"""A training between two epochs, or two parts of a long one: weights, Adam's moments, and the best epoch so far.

Saved to continue as if never interrupted: one safetensors file with JSON in its header, so that nothing is unpickled. There is no
generator's state in it: every draw of an epoch derives from the seed, the epoch and its part alone.
"""

import json
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from recsys.config.schema import Config
from recsys.errors import InputError
from recsys.kernels.adam import Adam
from recsys.models import Model, build_model
from recsys.storage.files import write_atomically
from recsys.training.seeds import generator_of

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_NUMBERS = ("epoch", "best_epoch", "best_value", "parts", "metrics")


@dataclass
class TrainingState:
    """A training after `epoch` epochs and `parts` parts of the next. `fit` changes it in place: save it before it goes on.

    `best_weights`: the model's tensors at `best_epoch`, on the CPU; None, as the other two, where no epoch was ranked.
    `metrics`: what was last reported.
    """

    model: Model
    adam: Adam
    epoch: int = 0
    best_epoch: int | None = None
    best_value: float | None = None
    best_weights: dict[str, Tensor] | None = None
    parts: int = 0
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def metrics_so_far(self) -> dict[str, float]:
        """What was last reported of the epoch in progress, empty before its first part."""
        return self.metrics if self.parts else {}

    def advance(self, metrics: dict[str, float], is_whole: bool) -> None:
        """Count one more part, which completes its epoch where `is_whole`."""
        self.metrics = metrics
        self.epoch, self.parts = (self.epoch + 1, 0) if is_whole else (self.epoch, self.parts + 1)

    def note_value(self, value: float) -> None:
        """Keep the weights of this epoch if `value` is better than all before."""
        if self.best_value is None or value > self.best_value:
            self.best_epoch, self.best_value = self.epoch, value
            self.best_weights = {
                name: weight.detach().to("cpu", copy=True)
                for name, weight in self.model.state_dict().items()
            }

    def save(self, path: Path) -> None:
        """Write the state to a file, complete or not at all."""
        tensors = {f"model.{name}": weight for name, weight in self.model.state_dict().items()}
        tensors |= {f"best.{name}": weight for name, weight in (self.best_weights or {}).items()}
        for name, parameter in self.model.named_parameters():
            tensors |= {
                f"{moment}.{name}": tensor
                for moment, tensor in self.adam.moments[parameter].items()
            }
        numbers = {name: getattr(self, name) for name in _NUMBERS}
        with write_atomically(path) as partial:
            write_tensors(tensors, partial, {"training": json.dumps(numbers)})

    def save_best(self, path: Path, config: Config) -> None:
        """Write the best weights alone to a file, complete or not at all, with the config (JSON) and the epoch in its header.

        `build_model(config.model, ...).load_state_dict` takes the tensors as they are. There must be a best epoch.
        """
        assert self.best_weights is not None
        header = {"config": config.model_dump_json(), "epoch": str(self.best_epoch)}
        with write_atomically(path) as partial:
            write_tensors(self.best_weights, partial, header)

    @classmethod
    def load(
        cls, path: Path, config: Config, n_users: int, n_items: int, device: str | torch.device
    ) -> Self:
        """Read what `save` wrote for the same config and data.

        Raises:
            InputError: if there is no such file; if it is damaged, or holds another model's training.
        """
        if not path.is_file():
            raise InputError(
                path, "must be a saved training", "no such file", "Start the training anew."
            )
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, the file is no mapping
                found = json.loads((file.metadata() or {})["training"])
                numbers = {name: found[name] for name in _NUMBERS}
        except (SafetensorError, KeyError, ValueError) as error:
            raise InputError(
                path, "must be a saved training", error, "Start the training anew."
            ) from None
        model, adam = _build(config, n_users, n_items, 0, device)
        weights, parameters = model.state_dict(), dict(model.named_parameters())
        kept = ("model",) if numbers["best_epoch"] is None else ("model", "best")
        wanted = {
            f"{kind}.{name}": weight.shape for kind in kept for name, weight in weights.items()
        }
        wanted |= {
            f"{moment}.{name}": weight.shape
            for moment in _MOMENTS[1:]
            for name, weight in parameters.items()
        }
        wanted |= {f"step.{name}": torch.Size() for name in parameters}
        wrong = [
            name
            for name, shape in wanted.items()
            if name not in tensors or tensors[name].shape != shape
        ]
        if wrong:
            raise InputError(
                path,
                "must be a training of this config and data",
                f"another {wrong[0]}",
                "Start the training anew.",
            )
        model.load_state_dict({name: tensors[f"model.{name}"] for name in weights})
        for name, parameter in parameters.items():
            adam.moments[parameter] = {moment: tensors[f"{moment}.{name}"] for moment in _MOMENTS}
        best = (
            None
            if numbers["best_epoch"] is None
            else {name: tensors[f"best.{name}"].cpu() for name in weights}
        )
        return cls(model, adam, best_weights=best, **numbers)


def write_tensors(tensors: dict[str, Tensor], path: Path, header: dict[str, str]) -> None:
    """Write a file of safetensors with the permissions that any new file gets; those of `save_file` are its owner's alone."""
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    save_file(tensors, path, metadata=header)
    path.chmod(mode)


def start_training(
    config: Config, n_users: int, n_items: int, seed: int, device: str | torch.device
) -> TrainingState:
    """A new model with weights drawn from the seed, the same on every device, and Adam at rest."""
    return TrainingState(*_build(config, n_users, n_items, seed, device))


def _build(
    config: Config, n_users: int, n_items: int, seed: int, device: str | torch.device
) -> tuple[Model, Adam]:
    model = build_model(config.model, n_users, n_items, generator_of(seed, 0, 0, "cpu")).to(device)
    return model, Adam.start(model, config.training.learning_rate)
