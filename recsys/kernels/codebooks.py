"""Residual quantisation: a vector as a sum of codebook entries, one of each level.

Called by `models.rqvae`. Codebooks are (L, K, d): the entry of code k at level l is
`codebooks[l, k]`. A level quantises what the levels before it leave of a vector, the residual.

Source: Lee et al. 2022, arXiv:2203.01941, sec. 3.1; van den Oord et al. 2017, arXiv:1711.00937,
app. A.1 (moving averages).
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

DECAY = 0.99
"""Share of an entry's moving average that a step keeps."""
N_ITERATIONS = 20
"""Iterations of k-means."""
ROWS = 1 << 14
"""Vectors whose distances to all entries are computed at a time."""


class Quantised(NamedTuple):
    """Codes of n vectors.

    `codes` (n, L) int64. `residuals` (L + 1, n, d): the vectors, then what the first level leaves
    of them, and so on.
    """

    codes: Tensor
    residuals: Tensor


def quantise(vectors: Tensor, codebooks: Tensor) -> Quantised:
    """Return the codes of vectors (n, d): at each level the entry nearest to the residual.

    The residuals pass gradients to the vectors and not to the codebooks.
    """
    codes, residuals = [], [vectors]
    for codebook in codebooks.detach():
        code = nearest(residuals[-1], codebook)
        codes.append(code)
        residuals.append(residuals[-1] - codebook.index_select(0, code))
    return Quantised(torch.stack(codes, 1), torch.stack(residuals))


def sum_entries(codes: Tensor, codebooks: Tensor) -> Tensor:
    """Return the sum (..., d) of the entries of codes (..., L), of any integer type."""
    total = codebooks.new_zeros(*codes.shape[:-1], codebooks.shape[2])
    for codebook, code in zip(codebooks, codes.long().unbind(-1), strict=True):
        total += functional.embedding(code, codebook)
    return total


def nearest(vectors: Tensor, codebook: Tensor) -> Tensor:
    """Return the nearest entry (n,) int64 of a codebook (K, d) to each vector (n, d)."""
    norms = codebook.square().sum(1)
    blocks = torch.split(vectors.detach(), ROWS)
    return torch.cat([(norms - 2 * block @ codebook.T).argmin(1) for block in blocks])


def perplexities(codes: Tensor, n_codes: int) -> Tensor:
    """Return the perplexity (L,) of each level of codes (n, L): K if all are equally common."""
    counts = torch.stack([torch.bincount(code, minlength=n_codes) for code in codes.long().T])
    entropy: Tensor = torch.special.entr(counts / len(codes)).sum(1)
    return entropy.exp()


def unique_share(codes: Tensor) -> float:
    """Return the share of the n vectors whose codes (n, L) no other vector has."""
    _, counts = torch.unique(codes, dim=0, return_counts=True)
    return int((counts == 1).sum()) / len(codes)


def fit_codebooks(
    vectors: Tensor, n_levels: int, n_codes: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return codebooks (L, K, d) by k-means of each level's residuals, and their counts (L, K).

    The counts are those of the vectors (n, d) with each code. There must be `n_codes` vectors.
    """
    codebooks, counts = [], []
    residual = vectors
    for _ in range(n_levels):
        codebook = _k_means(residual, n_codes, generator)
        code = nearest(residual, codebook)
        residual = residual - codebook.index_select(0, code)
        codebooks.append(codebook)
        counts.append(torch.bincount(code, minlength=n_codes))
    return torch.stack(codebooks), torch.stack(counts).to(vectors.dtype)


def _k_means(vectors: Tensor, n_codes: int, generator: torch.Generator) -> Tensor:
    """Return the means (K, d); one that no vector is nearest to restarts at a random vector."""
    codebook = _draw(vectors, n_codes, generator)
    for _ in range(N_ITERATIONS):
        n, total = _sums(vectors, nearest(vectors, codebook), n_codes)
        others = _draw(vectors, n_codes, generator)
        codebook = torch.where(n > 0, total / n.clamp(min=1), others)
    return codebook


def _draw(vectors: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Return `n` of the vectors, drawn without replacement."""
    order = torch.randperm(len(vectors), generator=generator, device=vectors.device)
    return vectors[order[:n]]


def _sums(vectors: Tensor, code: Tensor, n_codes: int) -> tuple[Tensor, Tensor]:
    """Return the number (K, 1) and the sum (K, d) of the vectors (n, d) with each code."""
    n = torch.bincount(code, minlength=n_codes).to(vectors.dtype).unsqueeze(1)
    return n, vectors.new_zeros(n_codes, vectors.shape[1]).index_add_(0, code, vectors)


def follow(codebooks: Tensor, counts: Tensor, quantised: Quantised) -> None:
    """Move the entries, in place, towards the means of the residuals that have their codes.

    An entry is the ratio of two moving averages: of the sum of these residuals, and of their
    number, which `counts` (L, K) has. An entry without residuals stays where it is.
    """
    residuals = quantised.residuals[:-1].detach()
    levels = zip(codebooks, counts, residuals, quantised.codes.T, strict=True)
    for codebook, count, residual, code in levels:
        n, total = _sums(residual, code, len(codebook))
        count.mul_(DECAY).add_(n.squeeze(1), alpha=1 - DECAY)
        step = (total - n * codebook) / count.unsqueeze(1)
        codebook.add_(torch.where(n > 0, step, 0.0), alpha=1 - DECAY)


def restart_unused(
    codebooks: Tensor, counts: Tensor, vectors: Tensor, generator: torch.Generator
) -> None:
    """Move the entries whose code none of the vectors (n, d) has to random residuals, in place.

    Their moving averages start again at one residual. A level restarts before the next one.
    """
    residual = vectors
    for codebook, count in zip(codebooks, counts, strict=True):
        code = nearest(residual, codebook)
        unused = torch.bincount(code, minlength=len(codebook)) == 0
        codebook[unused] = _draw(residual, int(unused.sum()), generator)
        count[unused] = 1.0
        residual = residual - codebook.index_select(0, nearest(residual, codebook))
