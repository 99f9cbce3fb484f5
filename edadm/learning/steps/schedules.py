"""What changes from one learning step to the next: the rows, the learning rate, the regulariser."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from edadm.quant.streams import Stream


def row_table(iterations: int, batch_size: int, rows: int, stream: Stream) -> Int[Tensor, "iterations k"]:
    """For each step, different rows in random order: those with the smallest of `rows` random numbers."""
    size = min(batch_size, rows)
    table = [
        stream.child(first)
        .bits(rows * min(1024, iterations - first))
        .view(-1, rows)
        .topk(size, largest=False)
        .indices
        for first in range(0, iterations, 1024)
    ]
    return torch.cat(table)


def weighted_row_table(
    iterations: int, batch_size: int, weights: Float[Tensor, " rows"], stream: Stream
) -> Int[Tensor, "iterations k"]:
    """For each step, as many rows as `row_table` has, each drawn by itself with its weight as probability.

    So a step's loss is the weighted sum of all rows' in expectation; a row may be drawn twice.
    """
    size = min(batch_size, len(weights))
    upto = weights.double().to(stream.step.device).cumsum(0)
    uniform = (stream.bits(iterations * size).double() + 2**31) / 2**32
    rows = torch.searchsorted(upto, uniform * upto[-1], right=True)
    last = weights.nonzero().max().item()  # sums may be rounded
    return rows.clamp(max=int(last)).view(iterations, size)


def cosine_rates(iterations: int) -> Float[Tensor, " iterations"]:
    """Factors of the learning rate at each step, fp64: half a cosine from 1 to 0 (method, 4.3, step 7)."""
    return 0.5 * (1 + torch.cos(math.pi * torch.arange(iterations, dtype=torch.float64) / iterations))


def rounding_exponents(iterations: int) -> tuple[Float[Tensor, " iterations"], Float[Tensor, " iterations"]]:
    """The regulariser's switch and exponent at each step (AdaRound).

    It is off for a fifth of the steps; then its exponent falls from 20 to 2 along half a cosine.
    """
    progress = ((torch.arange(iterations, dtype=torch.float64) / iterations - 0.2) / 0.8).clamp(min=0)
    return (progress > 0).double(), 2 + 0.5 * (20 - 2) * (1 + torch.cos(math.pi * progress))
