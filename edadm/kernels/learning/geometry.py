"""How a kernel that walks memory from end to end finds the channel of an element."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 2048


class Geometry(NamedTuple):
    """The channel of element i in memory, `(i // inner) % channels`; from `split` on it is segment two."""

    inner: int
    channels: int
    split: int

    @classmethod
    def of(cls, x: Tensor, segments: tuple[int, ...]) -> Geometry:
        """The geometry of a dense tensor whose channels are axis 1, the outermost axis being rows."""
        channels = x.shape[1] if x.dim() > 1 else 1
        inner = x.stride(1) if x.dim() > 1 else 1
        return cls(inner, channels, segments[0] if len(segments) > 1 else channels)


def is_dense(x: Tensor) -> bool:
    """Whether the elements fill their memory without gaps or overlaps, rows (axis 0) outermost."""
    expected = 1
    for size, stride in sorted(
        ((n, s) for n, s in zip(x.shape, x.stride(), strict=True) if n > 1), key=lambda pair: pair[1]
    ):
        if stride != expected:
            return False
        expected *= size
    return x.dim() == 0 or x.shape[0] == 1 or x.stride(0) * x.shape[0] == expected


def memory_like(x: Tensor, model: Tensor | None = None) -> Tensor:
    """`x`, dense, each row laid out like the rows of `model` if one is given; a copy only where needed."""
    if model is None:
        return x if is_dense(x) else x.contiguous()
    if x.stride() == model.stride():
        return x
    return torch.empty_strided(x.shape, model.stride(), dtype=x.dtype, device=x.device).copy_(x)
