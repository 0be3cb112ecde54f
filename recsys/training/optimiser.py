"""Adam whose cost depends on the rows that a step uses, with the result of Adam on all rows.

Called by `gradient_descent`; the arithmetic is in `kernels.adam` and `kernels.row_adam`. Where an
embedding is large compared with a batch's lookups, a step copies the rows that the batch uses out
of the embedding and out of Adam's moments, relabels the batch by positions in the copies, trains a
small model on them, and writes the rows back. A row catches up on the steps that it missed when it
is used again. `catch_up` makes every row current; weights and moments are then those of plain
Adam, and no other state has to be saved.
"""

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from recsys.config.sections import ModelConfig
from recsys.kernels import row_adam
from recsys.kernels.adam import Adam
from recsys.models import Model, SideName, build_model
from recsys.training.contract import Batch

_B = TypeVar("_B", bound=Batch)
MIN_VALUES: float = 700_000
MIN_ROWS_PER_LOOKUP = 8
"""An embedding is updated by rows if it has `MIN_VALUES` values after `MIN_ROWS_PER_LOOKUP` rows
for each lookup of a batch are subtracted. At this bound both ways take equally long, within 15%,
on one core for widths of 8 to 64 and batches of 256 and 2,048."""
ROWS_AT_ONCE = 4096
"""Rows that catch up at a time, so that the temporaries stay in the cache."""


class Optimiser:
    """Steps of Adam, by rows or on whole embeddings.

    A step is: `batch = prepare(batch)`, the loss of this object's `model` on `batch`, backward,
    `step()`. An epoch or a segment ends with `catch_up()`. `adam` stores the moments of every
    parameter of the model, and the learning rate, which may change after `catch_up`.
    """

    def __init__(
        self, config: ModelConfig, model: Model, adam: Adam, n_lookups: Mapping[SideName, int]
    ) -> None:
        """Choose between rows and whole embeddings, given the lookups of a batch by side.

        Raises:
            TypeError: if the model has an undeclared parameter with a row per user or per item.
        """
        self.model = model
        self._adam = adam
        self._missed = row_adam.MissedSteps(adam.n_steps)
        self._sides: dict[str, _Side] = {}
        small = build_model(config, 1, 1, torch.Generator())
        _require_declared(model, small)
        # On a GPU, Adam on whole embeddings is one kernel at the speed of memory, and a step does
        # not wait for a list of unique ids.
        if next(model.parameters()).device.type != "cpu":
            return
        shared = {name for name, _ in model.named_parameters()}
        for side, n in n_lookups.items():
            names = model.row_parameters(side)
            if _pays_by_rows([model.get_parameter(name) for name in names], n):
                parameters = [
                    _RowParameter(small, name, model.get_parameter(name), adam) for name in names
                ]
                buffers = {name: model.get_buffer(name) for name in model.row_buffers(side)}
                self._sides[side] = _Side(parameters, buffers, small, adam, self._missed)
                shared -= set(names)
        if self._sides:
            for name in shared:
                _replace(small, name, model.get_parameter(name))
            for name, buffer in model.named_buffers():
                _replace(small, name, buffer)
            self.model = small

    def prepare(self, batch: _B) -> _B:
        """Clear the gradients, make the batch's rows current; return it with the ids of `model`."""
        self._adam.zero_grad()
        user, item = (
            self._sides[side].gather if side in self._sides else _unchanged
            for side in ("user", "item")
        )
        return batch.relabel(user, item)

    def step(self) -> None:
        """Update the rows of the last batch, and all parameters that are not updated by rows."""
        self._adam.step()
        if self._sides:
            for side in self._sides.values():
                side.update()
            self._missed.advance(self._adam.learning_rate)
            if self._missed.now == row_adam.MAX_STEPS:
                self.catch_up()

    def catch_up(self) -> None:
        """Make every row current."""
        for side in self._sides.values():
            side.catch_up()
        self._missed.restart(self._adam.n_steps)


def _require_declared(model: Model, small: Model) -> None:
    """Check that the model declares each parameter whose shape depends on the users or items."""
    declared = {*model.row_parameters("user"), *model.row_parameters("item")}
    for name, parameter in model.named_parameters():
        if name not in declared and parameter.shape != small.get_parameter(name).shape:
            raise TypeError(
                f"{type(model).__name__}.{name}: has a row per user or per item, but no"
                " RowParameters declares it"
            )


def _unchanged(*ids: Tensor) -> tuple[Tensor, ...]:
    return ids


def _pays_by_rows(parameters: list[nn.Parameter], n_lookups: int) -> bool:
    if not parameters:
        return False
    width = sum(parameter[0].numel() for parameter in parameters)
    return (len(parameters[0]) - MIN_ROWS_PER_LOOKUP * n_lookups) * width >= MIN_VALUES


def _replace(model: Model, name: str, values: Tensor) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, values)


class _RowParameter:
    """Parameter with a row per user or per item, its moments, and the copied rows of a batch.

    `tensors`: the weights, first and second moments, each (n, ...). `rows` (U, ...), `moments`:
    the copies, which the small model trains.
    """

    def __init__(self, small: Model, name: str, weight: nn.Parameter, adam: Adam) -> None:
        state = adam.moments[weight]
        self.tensors: tuple[Tensor, Tensor, Tensor] = (
            weight.data,
            state["exp_avg"],
            state["exp_avg_sq"],
        )
        self.step: Tensor = state["step"]
        self._small, self._name = small, name
        self.rows: nn.Parameter
        self.moments: dict[str, Tensor]

    def train_rows(self, weight: Tensor, moment: Tensor, square: Tensor) -> None:
        """Make rows (U, ...) the small model's parameter."""
        # A new parameter, since autograd may still remember the shape of the last one.
        self.rows = nn.Parameter(weight)
        self.moments = {"step": self.step, "exp_avg": moment, "exp_avg_sq": square}
        _replace(self._small, self._name, self.rows)


class _Side:
    """Parameters of the users or of the items, and buffers, which share the ids of a batch.

    `last` (n,): the step up to which each row is current. `ids` (U,): the rows of the batch.
    """

    def __init__(
        self,
        parameters: list[_RowParameter],
        buffers: Mapping[str, Tensor],
        small: Model,
        adam: Adam,
        missed: row_adam.MissedSteps,
    ) -> None:
        self._parameters, self._buffers, self._small = parameters, buffers, small
        self._adam, self._missed = adam, missed
        n_rows = len(parameters[0].tensors[0])
        self._last = torch.zeros(n_rows, dtype=torch.int64)
        self._positions = torch.empty(n_rows, dtype=torch.int64)
        self._ids = torch.empty(0, dtype=torch.int64)

    def gather(self, *ids: Tensor) -> tuple[Tensor, ...]:
        """Copy the rows of the ids, made current, into the small model; return their positions.

        The ids are tensors of any shape, the positions of the same shapes.
        """
        flat = torch.cat([some.reshape(-1) for some in ids])
        self._ids, positions = row_adam.find_unique(flat, self._positions)
        last = self._last.index_select(0, self._ids)
        for parameter in self._parameters:
            weight, moment, square = (
                tensor.index_select(0, self._ids) for tensor in parameter.tensors
            )
            self._missed.catch_up(weight, moment, square, last)
            parameter.train_rows(weight, moment, square)
        for name, buffer in self._buffers.items():
            _replace(self._small, name, buffer.index_select(0, self._ids))
        split = torch.split(positions, [some.numel() for some in ids])
        return tuple(at.view(some.shape) for at, some in zip(split, ids, strict=True))

    def update(self) -> None:
        """Step the gathered rows and write them back."""
        for parameter in self._parameters:
            self._adam.update([parameter.rows], [parameter.moments])
            moments = parameter.moments["exp_avg"], parameter.moments["exp_avg_sq"]
            copies = (parameter.rows.data, *moments)
            for tensor, rows in zip(parameter.tensors, copies, strict=True):
                tensor.index_copy_(0, self._ids, rows)
        self._last.index_fill_(0, self._ids, self._missed.now + 1)

    def catch_up(self) -> None:
        """Make every row current."""
        for first in range(0, len(self._last), ROWS_AT_ONCE):
            some = slice(first, first + ROWS_AT_ONCE)
            for parameter in self._parameters:
                weight, moment, square = (tensor[some] for tensor in parameter.tensors)
                self._missed.catch_up(weight, moment, square, self._last[some])
        self._last.zero_()
