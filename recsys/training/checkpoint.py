"""Training state between two epochs or segments, and its files.

`fit` changes the state; a trial saves it as a checkpoint and resumes from it with the same results
as an uninterrupted training. A checkpoint is one safetensors file with JSON in its header, so
nothing is unpickled. It needs no state of generators, because every draw has a seed of its own
(`segments`).
"""

import json
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from recsys.config.schema import Config
from recsys.errors import InputError
from recsys.kernels.adam import Adam
from recsys.models import Model, build_model
from recsys.storage.files import write_atomically
from recsys.training.segments import generator_of

_MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_FIELDS = {
    "epoch": "epoch",
    "best_epoch": "best_epoch",
    "best_value": "best_value",
    "parts": "segment",
    "metrics": "metrics",
}
"""Keys of the header's JSON, and the fields of the state that they store."""


@dataclass
class TrainingState:
    """State of a training after `epoch` epochs and `segment` segments of the next one.

    `fit` changes it in place: save it before the next step of `fit`. `best_weights`: the model's
    tensors at `best_epoch`, on the CPU; like `best_epoch` and `best_value` None if no epoch was
    ranked. `metrics`: the metrics that were reported last.
    """

    model: Model
    adam: Adam
    epoch: int = 0
    best_epoch: int | None = None
    best_value: float | None = None
    best_weights: dict[str, Tensor] | None = None
    segment: int = 0
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def metrics_so_far(self) -> dict[str, float]:
        """Metrics of the epoch in progress, empty before its first segment."""
        return self.metrics if self.segment else {}

    def advance(self, metrics: dict[str, float], is_whole: bool) -> None:
        """Count one more segment, the last of its epoch if `is_whole`."""
        self.metrics = metrics
        self.epoch, self.segment = (
            (self.epoch + 1, 0) if is_whole else (self.epoch, self.segment + 1)
        )

    def note_value(self, value: float) -> None:
        """Keep the weights of this epoch if `value` is its best validation value so far."""
        if self.best_value is None or value > self.best_value:
            self.best_epoch, self.best_value = self.epoch, value
            self.best_weights = {
                name: weight.detach().to("cpu", copy=True)
                for name, weight in self.model.state_dict().items()
            }

    def restore_best(self) -> None:
        """Put the best weights into the model, at the end of a training that ranked an epoch."""
        assert self.best_weights is not None
        self.model.load_state_dict(self.best_weights)

    def save(self, path: Path) -> None:
        """Write the state to a file, complete or not at all."""
        tensors = {f"best.{name}": weight for name, weight in (self.best_weights or {}).items()}
        for name, weight in self.model.state_dict(keep_vars=True).items():
            tensors[f"model.{name}"] = weight.data
            moments = self.adam.moments.get(weight, {})  # none for what is not trained
            tensors |= {f"{moment}.{name}": tensor for moment, tensor in moments.items()}
        numbers = {key: getattr(self, name) for key, name in _FIELDS.items()}
        with write_atomically(path) as partial:
            write_tensors(tensors, partial, {"training": json.dumps(numbers)})

    def save_best(self, path: Path, config: Config) -> None:
        """Write the best weights to a file, complete or not at all; there must be a best epoch.

        The config (JSON) and the epoch are in its header, and
        `build_model(config.model, ...).load_state_dict` accepts its tensors.
        """
        assert self.best_weights is not None
        header = {"config": config.model_dump_json(), "epoch": str(self.best_epoch)}
        with write_atomically(path) as partial:
            write_tensors(self.best_weights, partial, header)

    @classmethod
    def load(
        cls, path: Path, config: Config, n_users: int, n_items: int, device: str | torch.device
    ) -> Self:
        """Read a file that `save` wrote for the same config and data.

        Raises:
            InputError: if there is no such file; if it is damaged, or of another model.
        """
        if not path.is_file():
            raise _not_saved(path, "no such file")
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                names = file.keys()
                tensors = {name: file.get_tensor(name) for name in names}
                numbers = json.loads((file.metadata() or {})["training"])
                values = {name: numbers[key] for key, name in _FIELDS.items()}
        except (SafetensorError, KeyError, ValueError) as error:
            raise _not_saved(path, error) from None
        model, adam = _build(config, n_users, n_items, 0, device)
        weights = model.state_dict(keep_vars=True)
        has_best = values["best_epoch"] is not None
        trained = [name for name, weight in weights.items() if weight in adam.moments]
        _require_tensors(path, tensors, weights, trained, has_best)
        model.load_state_dict({name: tensors[f"model.{name}"] for name in weights})
        for name in trained:
            moments = {moment: tensors[f"{moment}.{name}"] for moment in _MOMENTS}
            adam.moments[weights[name]] = moments
        if has_best:
            values["best_weights"] = {name: tensors[f"best.{name}"].cpu() for name in weights}
        return cls(model, adam, **values)


def _require_tensors(
    path: Path,
    tensors: dict[str, Tensor],
    weights: dict[str, Any],
    trained: Sequence[str],
    has_best: bool,
) -> None:
    """Check that a checkpoint has all weights, and the moments of the trained, in their shapes."""
    kinds = ("model", "best") if has_best else ("model",)
    wanted = {f"{kind}.{name}": weights[name].shape for kind in kinds for name in weights}
    wanted |= {f"{kind}.{name}": weights[name].shape for kind in _MOMENTS[1:] for name in trained}
    wanted |= {f"step.{name}": torch.Size() for name in trained}
    for name, shape in wanted.items():
        if name not in tensors or tensors[name].shape != shape:
            raise InputError(
                path,
                "must be a training of this config and data",
                f"another {name}",
                "Start the training anew.",
            )


def _not_saved(path: Path, found: object) -> InputError:
    return InputError(path, "must be a saved training", found, "Start the training anew.")


def write_tensors(tensors: dict[str, Tensor], path: Path, header: dict[str, str]) -> None:
    """Write a safetensors file with the permissions of any new file.

    `save_file` alone makes it readable by its owner only.
    """
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    save_file(tensors, path, metadata=header)
    path.chmod(mode)


def start_training(
    config: Config, n_users: int, n_items: int, seed: int, device: str | torch.device
) -> TrainingState:
    """Return a new model and a new Adam. The weights depend on the seed, not on the device."""
    return TrainingState(*_build(config, n_users, n_items, seed, device))


def _build(
    config: Config, n_users: int, n_items: int, seed: int, device: str | torch.device
) -> tuple[Model, Adam]:
    model = build_model(config.model, n_users, n_items, generator_of(seed, 0, 0, "cpu")).to(device)
    return model, Adam.start(model, config.training.learning_rate)
