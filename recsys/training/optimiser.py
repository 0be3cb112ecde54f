"""Adam whose cost goes with the rows that a step touches, and whose result is that of Adam on whole tables.

Stands between the loop in `descent` and `adam`. Where a table is large against what a batch looks up, a step copies the
rows it needs out of the table and out of Adam's moments, relabels the batch by their places in the copy, trains a small model on
it, and writes the rows back. A row that was left out for some steps makes up for them when it is needed again: Adam on the whole
table would have decayed its moments and moved it along what was left of them, and both have a closed form. `settle` brings all
rows up to date; weights and moments are then those of plain Adam, and nothing else has to be kept.

With gradient 0 after step t, step t + k moves a row by -c(t + k) r^k m / (sqrt(v) + e_k), where r = beta1 / sqrt(beta2),
c(j) = lr sqrt(1 - beta2^j) / (1 - beta1^j) and e_k = eps sqrt(beta2^-k - beta2^t). The sum over k is exact but for e_k, of which
its mean is taken, weighted by what a step moves: an error of second order, and some 10 steps count, in which e_k grows by 0.5%
(more within the first steps of a training). Source: Kingma and Ba 2015, arXiv:1412.6980, sec. 2.
"""

import math
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from recsys.config.sections import ModelConfig
from recsys.kernels.adam import BETA1, BETA2, EPS, Adam
from recsys.models import Model, SideName, build_model
from recsys.training.contract import Batch

_B = TypeVar("_B", bound=Batch)
MIN_VALUES: float = 700_000
MIN_ROWS_PER_LOOKUP = 8
"""Tables are updated by rows if they hold this many values, and rows for each lookup of a batch, beyond: where both ways take as
long, within 15%, on one core for widths of 8 to 64 and batches of 256 and 2,048."""
WINDOW = 256
"""Missed steps that still move a row: those after it add a share of r^256 = 2e-12."""
MAX_STEPS = 4096
"""Steps between two settlings at most, which bounds the bookkeeping at the cost of about one step on whole tables."""
SETTLED_ROWS = 4096
"""Rows of a table that are settled at a time, so that the temporaries stay in the cache."""


class Optimiser:
    """A step is: `batch = prepare(batch)`, call `model` of this object on it, backward, `step()`. An epoch ends with `settle()`.

    `adam` holds the moments of every parameter of the model, and the learning rate, which may change after a settling.
    """

    def __init__(
        self, config: ModelConfig, model: Model, adam: Adam, n_lookups: Mapping[SideName, int]
    ) -> None:
        """Choose between rows and whole tables for `user` and `item`, of which a batch looks up `n_lookups`.

        Raises:
            TypeError: if the model has an undeclared parameter with a row a user or a row an item.
        """
        self.model = model
        self._adam = adam
        self._missed = _MissedSteps(adam)
        self._sides: dict[str, _Side] = {}
        small = build_model(config, 1, 1, torch.Generator())
        _require_declared(model, small)
        # Elsewhere Adam on whole tables is one kernel at the speed of memory, and a step waits for no list of unique ids.
        if next(model.parameters()).device.type != "cpu":
            return
        shared = {name for name, _ in model.named_parameters()}
        for side, n in n_lookups.items():
            names = model.row_parameters(side)
            if _pays_by_rows([model.get_parameter(name) for name in names], n):
                tables = [_Table(small, name, model.get_parameter(name), adam) for name in names]
                self._sides[side] = _Side(tables, self._missed)
                shared -= set(names)
        if self._sides:
            for name in shared:
                _replace(small, name, model.get_parameter(name))
            self.model = small

    def prepare(self, batch: _B) -> _B:
        """Clear the gradients and bring the batch's rows up to date; the batch's ids as `model` counts them."""
        self._adam.zero_grad()
        user, item = (
            self._sides[side].gather if side in self._sides else _as_they_are
            for side in ("user", "item")
        )
        return batch.relabel(user, item)

    def step(self) -> None:
        """Update whole tables, all other parameters, and the rows of the last batch."""
        self._adam.step()
        if self._sides:
            for side in self._sides.values():
                side.update()
            self._missed.advance()
            if self._missed.now == MAX_STEPS:
                self.settle()

    def settle(self) -> None:
        """Bring every row up to date."""
        for side in self._sides.values():
            side.settle()
        self._missed.restart()


def _require_declared(model: Model, small: Model) -> None:
    """Check that the model has declared each parameter whose shape is another for one user and one item."""
    declared = {*model.row_parameters("user"), *model.row_parameters("item")}
    for name, parameter in model.named_parameters():
        if name not in declared and parameter.shape != small.get_parameter(name).shape:
            raise TypeError(
                f"{type(model).__name__}.{name}: has a row a user or an item, but no RowParameters declares it"
            )


def _as_they_are(*ids: Tensor) -> tuple[Tensor, ...]:
    return ids


def _pays_by_rows(tables: list[nn.Parameter], n_lookups: int) -> bool:
    width = sum(table[0].numel() for table in tables)
    return (len(tables[0]) - MIN_ROWS_PER_LOOKUP * n_lookups) * width >= MIN_VALUES


def _replace(model: Model, name: str, weight: nn.Parameter) -> None:
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, weight)


class _MissedSteps:
    """What Adam does to a row without a gradient, by the step that the row was up to date at, counted from the last settling.

    `now`: steps since then. `moved` (MAX_STEPS + 1,): the sum of -c(t + k) r^k over the steps missed after t, and `eps`, of the
    same shape, the mean of e_k over them.
    """

    def __init__(self, adam: Adam) -> None:
        self.adam = adam
        steps = torch.arange(MAX_STEPS + 1, dtype=torch.float64)
        self.decays = ((BETA1**steps).float(), (BETA2**steps).float())
        missed = torch.arange(WINDOW, 0, -1, dtype=torch.float64)
        self.shares = ((BETA1 / math.sqrt(BETA2)) ** missed).float()
        self.growth = BETA2**-missed
        self.restart()

    def restart(self) -> None:
        """Count from 0: every row is up to date."""
        self.now = 0
        self.start = max(int(state["step"]) for state in self.adam.moments.values())
        self.moved, self.moved_eps = torch.zeros(2, MAX_STEPS + 1)
        self.eps = torch.full((MAX_STEPS + 1,), EPS)
        steps = torch.arange(self.start, self.start + MAX_STEPS + 1, dtype=torch.float64)
        self.decayed = BETA2**steps

    def advance(self) -> None:
        """One more step, which all rows miss but those that are marked as up to date."""
        self.now += 1
        j = self.start + self.now
        c = self.adam.learning_rate * math.sqrt(1 - BETA2**j) / (1 - BETA1**j)
        missing = slice(max(0, self.now - WINDOW), self.now)
        window = slice(WINDOW - (missing.stop - missing.start), WINDOW)
        eps = (self.growth[window] - self.decayed[missing]).sqrt_().mul_(EPS).float()
        moved = self.moved[missing].add_(self.shares[window], alpha=-c)
        moved_eps = self.moved_eps[missing].addcmul_(self.shares[window], eps, value=-c)
        torch.div(moved_eps, moved, out=self.eps[missing])

    def make_up(self, tensors: tuple[Tensor, Tensor, Tensor], last: Tensor) -> None:
        """Change weights (U, ...) and moments (U, ...) in place by the steps that they missed after `last` (U,)."""
        weight, moment, square = tensors
        missed = self.now - last
        shape = (-1,) + (1,) * (weight.ndim - 1)
        moved, eps = (values.index_select(0, last).view(shape) for values in (self.moved, self.eps))
        decays = [values.index_select(0, missed).view(shape) for values in self.decays]
        weight.addcdiv_(moment * moved, square.sqrt().add_(eps))
        moment.mul_(decays[0])
        square.mul_(decays[1])


class _Table:
    """A parameter with a row a user or item, and its moments; of a batch's rows, the copies that the small model trains."""

    def __init__(self, small: Model, name: str, weight: nn.Parameter, adam: Adam) -> None:
        state = adam.moments[weight]
        self.tensors: tuple[Tensor, Tensor, Tensor] = (
            weight.data,
            state["exp_avg"],
            state["exp_avg_sq"],
        )
        self.step: Tensor = state["step"]
        self._small, self._name = small, name
        self.part: nn.Parameter
        self.moments: dict[str, Tensor]

    def hand_over(self, weight: Tensor, moment: Tensor, square: Tensor) -> None:
        """Give the rows (U, ...) of a batch to the small model."""
        # A new parameter, since autograd may still hold the old one's shape.
        self.part = nn.Parameter(weight)
        self.moments = {"step": self.step, "exp_avg": moment, "exp_avg_sq": square}
        _replace(self._small, self._name, self.part)


class _Side:
    """The tables of the users or of the items, which share the ids of a batch."""

    def __init__(self, tables: list[_Table], missed: _MissedSteps) -> None:
        self.tables = tables
        self.missed = missed
        n_rows = len(tables[0].tensors[0])
        self.last = torch.zeros(n_rows, dtype=torch.int64)
        self.place = torch.empty(n_rows, dtype=torch.int64)
        self.ids = torch.empty(0, dtype=torch.int64)

    def gather(self, *ids: Tensor) -> tuple[Tensor, ...]:
        """Copy the rows of the ids, tensors of any shape, into the small model, up to date; the places of the ids among them."""
        every = torch.cat([part.reshape(-1) for part in ids])
        # The id that is written last keeps its place: a list of unique ids without sorting.
        count = torch.arange(len(every))
        is_last = self.place.scatter_(0, every, count).gather(0, every) == count
        self.ids = every.masked_select(is_last)
        self.place.scatter_(0, self.ids, count[: len(self.ids)])
        last = self.last.index_select(0, self.ids)
        for table in self.tables:
            weight, moment, square = (tensor.index_select(0, self.ids) for tensor in table.tensors)
            self.missed.make_up((weight, moment, square), last)
            table.hand_over(weight, moment, square)
        places = torch.split(self.place.gather(0, every), [part.numel() for part in ids])
        return tuple(place.view(part.shape) for place, part in zip(places, ids, strict=True))

    def update(self) -> None:
        """Step the gathered rows and write them back."""
        for table in self.tables:
            self.missed.adam.update([table.part], [table.moments])
            parts = (table.part.data, table.moments["exp_avg"], table.moments["exp_avg_sq"])
            for tensor, part in zip(table.tensors, parts, strict=True):
                tensor.index_copy_(0, self.ids, part)
        self.last.index_fill_(0, self.ids, self.missed.now + 1)

    def settle(self) -> None:
        """Bring every row up to date with the last step."""
        for first in range(0, len(self.last), SETTLED_ROWS):
            rows = slice(first, first + SETTLED_ROWS)
            for table in self.tables:
                weight, moment, square = (tensor[rows] for tensor in table.tensors)
                self.missed.make_up((weight, moment, square), self.last[rows])
        self.last.zero_()
