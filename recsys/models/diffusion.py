"""Diffusion: an autoencoder that reads noisy rows of users, and denoises a row step by step."""

import itertools
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from recsys.config.sections import ModelConfig
from recsys.kernels.lookup import rows_of
from recsys.models.autoencoder import Autoencoder
from recsys.models.contract import Side
from recsys.models.histories import History, HistoryModel, TrainSide
from recsys.models.layers import Embedding

FIRST_VARIANCE, LAST_VARIANCE = 1e-4, 0.02
"""Variances of the noise at the first and the last step, with a scale of 1."""
N_LOSSES = 10
"""Losses of a step whose mean square decides how often the step is drawn."""
UNIFORM_SHARE = 1e-3
"""Share of the draws that are uniform."""
MAX_VALUES = 1 << 24
"""Most values of users' rows that are denoised at a time: 64 MB."""


@dataclass(frozen=True)
class Schedule:
    """Noise of T steps, counted from 1: x_t is N(sqrt(1 - v_t) x_0, v_t), and v_0 is 0.

    v_t grows linearly. The formulas divide out `scale`, so that they hold for a scale of 0.
    Source: Wang et al. 2023, arXiv:2304.04971, sec. 3.
    """

    n_steps: int
    scale: float

    @property
    def variances(self) -> list[float]:
        """v_1 to v_T."""
        return [self.scale * level for level in self._levels[1:]]

    @property
    def loss_weights(self) -> list[float]:
        """Weights of the loss at steps 1 to T, of mean 1.

        The weight of step t > 1 is the difference of the signal-to-noise ratios (1 - v) / v of the
        steps t - 1 and t, and that of step 1 is 1 before all are divided by their mean. Without
        noise all are 1.
        """
        if self.scale == 0:
            return [1.0] * self.n_steps
        _, *levels = self._levels
        pairs = itertools.pairwise(levels)
        weights = [1.0, *((1 / less - 1 / more) / self.scale for less, more in pairs)]
        mean = sum(weights) / len(weights)
        return [weight / mean for weight in weights]

    def posterior(self, step: int) -> tuple[float, float]:
        """Return the factors of x_0 and of x_t in the mean of x_(t-1) given both; t is `step`."""
        less, more = self._levels[step - 1 : step + 1]
        signal, signal_before = 1 - self.scale * more, 1 - self.scale * less
        of_start = (more - less) / (more * signal_before**0.5)
        return of_start, (signal / signal_before) ** 0.5 * less / more

    @property
    def _levels(self) -> list[float]:
        """v_0 to v_T with a scale of 1."""
        width = LAST_VARIANCE - FIRST_VARIANCE
        last = max(1, self.n_steps - 1)
        return [0.0, *(FIRST_VARIANCE + width * step / last for step in range(self.n_steps))]


class Diffusion(HistoryModel):
    """Diffusion model of users' rows with logit = <h_u, i> + b_i.

    The row x_0 of a user has a 1 at each of the n positives. Training draws a step t, adds the
    noise of `Schedule` to the row, and learns to reconstruct x_0: an autoencoder reads
    x_t / sqrt(n), plus a learned vector times (t - 1) / (T - 1) in its first layer. The config's
    loss of the logits is multiplied by the weight of the step, and divided by T times its
    probability. A step is drawn in proportion to the root mean square of its last `N_LOSSES` losses
    with their weights, or uniformly until every step has as many.

    Elsewhere a user starts at x_T = x_0, without noise. Each step replaces x_t by the mean of
    x_(t-1) given x_t and the reconstruction n softmax(logits); the latent is that of step 1. With
    one step and without noise, this is the autoencoder. Where a batch takes a sample of the items,
    the noise is on these items alone.

    Source: Wang et al. 2023, arXiv:2304.04971 (DiffRec), sec. 3, whose loss is the squared error.
    """

    losses: Tensor
    """Last losses of each step (T, `N_LOSSES`), infinite where there were fewer."""
    variances: Tensor
    loss_weights: Tensor

    def __init__(
        self, config: ModelConfig, n_users: int, n_items: int, generator: torch.Generator
    ) -> None:
        super().__init__(n_users, config.embedding_dim)
        plain = config.model_copy(update={"bottleneck": "none"})
        self.network = Autoencoder(plain, 0, n_items, generator)
        width = self.network.inputs.weight.shape[1]
        self.schedule = Schedule(config.noise_steps, config.noise_scale)
        self.step_vector = nn.Parameter(torch.zeros(width))
        variances, weights = self.schedule.variances, self.schedule.loss_weights
        self.register_buffer("losses", torch.full((config.noise_steps, N_LOSSES), torch.inf))
        self.register_buffer("variances", torch.tensor(variances), persistent=False)
        self.register_buffer("loss_weights", torch.tensor(weights), persistent=False)
        self.train_width = width if config.noise_scale else 0
        score_width = self.network.outputs.weight.shape[1]
        self.encode_width = (config.noise_steps - 1) * (width + score_width)

    def input_rows(self) -> Embedding:
        """Return the rows of the first layer."""
        return self.network.inputs

    def encode(self, history: History) -> Tensor:
        """Return the latents (B, d) of users."""
        total, length = self.network.sum_inputs(history), _counts(history).sqrt()
        if self.schedule.n_steps == 1:
            return self._encode_sum(total, 0)
        n_rows = max(1, MAX_VALUES // len(self.network.inputs.weight))
        pairs = zip(torch.split(total, n_rows), torch.split(length, n_rows), strict=True)
        return torch.cat([self._denoise(*pair) for pair in pairs])

    def _denoise(self, total: Tensor, length: Tensor) -> Tensor:
        """Return the latents (B, d) of step 1.

        Args:
            total: the first layer of the rows x_T, (B, width).
            length: their lengths, (B, 1).
        """
        inputs, items = self.network.inputs.weight, self.network.item_side(None)
        for step in range(self.schedule.n_steps, 1, -1):
            side = self.network.side_of(self._encode_sum(total, step - 1))
            start = self.network.score(side, items).softmax(1) * length
            of_start, of_row = self.schedule.posterior(step)
            total = of_start * (start @ inputs) + of_row * total
        return self._encode_sum(total, 0)

    def train_side(self, history: History, item: Tensor | None) -> TrainSide:
        """Return the side of B users in training, each at a random step with its noise.

        The noise is on the items (W,) of their batch, None for all.
        """
        total = self.network.sum_inputs(history)
        chances = self.chances()
        if self.schedule.n_steps == 1:
            step = torch.zeros(len(total), dtype=torch.int64, device=total.device)
        else:
            step = torch.multinomial(chances, len(total), replacement=True)
        if self.schedule.scale:
            variance = self.variances[step].unsqueeze(1)
            rows = rows_of(self.network.inputs.lookup(item))  # (W, width)
            # No gradient for a row of 0: without a positive it stays 0 (`input_rows`).
            rows = rows * rows.detach().any(1, keepdim=True)
            noise = torch.randn(len(total), len(rows), device=rows.device) @ rows
            spread = (variance / _counts(history)).sqrt()
            total = (1 - variance).sqrt() * total + spread * noise
        side = self.network.side_of(self._encode_sum(total, step))
        return TrainSide(side, weigh=partial(self._weigh, step, chances))

    def _encode_sum(self, total: Tensor, step: int | Tensor) -> Tensor:
        """Return the latents (B, d) at steps from 0, given the first layer (B, width)."""
        share = step / max(1, self.schedule.n_steps - 1)
        if isinstance(share, Tensor):
            share = share.unsqueeze(1)
        return self.network.encode_sum(total + share * self.step_vector)

    def chances(self) -> Tensor:
        """Return the probability (T,) of each step."""
        n_steps = self.schedule.n_steps
        uniform = torch.full_like(self.variances, 1 / n_steps)
        if n_steps == 1:
            return uniform
        root = self.losses.square().mean(1).sqrt()
        total = root.sum()
        # Neither before there are losses nor after one of NaN; decided without a wait for a GPU.
        is_known = (total > 0) & total.isfinite()
        weighted = (1 - UNIFORM_SHARE) * root / total + UNIFORM_SHARE / n_steps
        return torch.where(is_known, weighted, uniform)

    def _weigh(self, step: Tensor, chances: Tensor, losses: Tensor) -> Tensor:
        """Return the weights (B,) of the losses (B,) of users at these steps; note the losses."""
        n_steps, weights = len(chances), self.loss_weights[step]
        count = torch.bincount(step, minlength=n_steps)
        total = losses.new_zeros(n_steps).index_add_(0, step, weights * losses)
        latest = torch.cat([self.losses[:, 1:], (total / count).unsqueeze(1)], 1)
        self.losses.copy_(torch.where(count.unsqueeze(1) > 0, latest, self.losses))
        return weights / (n_steps * chances[step])

    def side_of(self, latent: Tensor) -> Side:
        """Return h_u of users with these latents (B, d)."""
        return self.network.side_of(latent)

    def item_side(self, item: Tensor | None) -> Side:
        """Return lookups of items (B, n) or (n,), of all for None."""
        return self.network.item_side(item)

    def score(self, user_side: Side, item_side: Side) -> Tensor:
        """Return the scores (B, n) of the sides of (B,) users and (B, n) or (n,) items."""
        return self.network.score(user_side, item_side)


def _counts(history: History) -> Tensor:
    """Return the number of positives of each user (B, 1)."""
    end = history.start.new_tensor([len(history.item)])
    return torch.cat([history.start, end]).diff().unsqueeze(1)
