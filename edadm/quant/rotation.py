"""Rotations of a product's operands by Hadamard matrices, which spread outliers over their block of channels.

The input's channels are rotated while the network runs, the weight's once, and the product stays (QuaRot,
arXiv 2404.00456; for diffusion ConvRot, arXiv 2512.03673). Blocks are as large as the largest power of two
that divides the channels. A matrix is the Kronecker product of small symmetric ones, divided by the root of
its size, so that it is its own inverse. Its factors of 4 rows are those of Sylvester, whose first row is
all ones and so gathers the mean of a block in one channel, or regular ones, whose rows all have the same
sum.
"""

from __future__ import annotations

from functools import cache
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from edadm.quant.scheme import HADAMARD, REGULAR_HADAMARD

_DENSE = 64  # rows of the factors that are multiplied at once
_PAIR = ((1, 1), (1, -1))
_FOURS = {
    HADAMARD: ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1)),
    REGULAR_HADAMARD: ((1, 1, 1, -1), (1, 1, -1, 1), (1, -1, 1, 1), (-1, 1, 1, 1)),
}


def block_of(channels: int) -> int:
    """The largest power of two that divides a number of channels."""
    return channels & -channels


def rotated(x: Float[Tensor, "*n channels"], kind: str) -> Float[Tensor, "*n channels"]:
    """The blocks of the last axis, rotated; rotated again they are what they were, up to rounding.

    Args:
        x: activations, or a weight of (rows, channels).
        kind: of the rotation, a key of `_FOURS`.
    """
    sizes = _sizes(block_of(x.shape[-1]))
    y = x.reshape(-1, prod(sizes))
    for size in sizes:  # each is brought to the end, and the next one behind it
        y = (y.reshape(len(y), size, -1).transpose(1, 2) @ _matrix(kind, size, x.dtype, x.device)).flatten(1)
    return (y / prod(sizes) ** 0.5).reshape(x.shape)


def _sizes(block: int) -> tuple[int, ...]:
    """The rows of the factors of a block's matrix: as many of 64 as there are, and what is left."""
    return (block,) if block <= _DENSE else (_DENSE, *_sizes(block // _DENSE))


@cache
def _matrix(kind: str, size: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "size size"]:
    """A factor as a tensor, kept: inside a CUDA graph none can be made of numbers."""
    with torch.inference_mode(False):
        return torch.tensor(_factor(kind, size), dtype=dtype, device=device)


def _factor(kind: str, size: int) -> tuple[tuple[int, ...], ...]:
    """The factor of so many rows, of numbers 1 and -1."""
    if size <= 2:
        return _PAIR if size == 2 else ((1,),)
    fours, others = _FOURS[kind], _factor(kind, size // 4)
    return tuple(tuple(a * b for a in row for b in other) for row in fours for other in others)
