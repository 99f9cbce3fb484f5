"""Whether an operation runs its Triton kernel or its meaning in plain PyTorch: one rule for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

_PLAIN = ContextVar("plain", default=False)


@contextmanager
def without_kernels() -> Iterator[None]:
    """Runs the plain meaning of every operation inside the context, to measure against."""
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def has_kernels(x: Tensor) -> bool:
    """Whether an operation on `x` launches its kernel, as on an Nvidia GPU.

    `torch.compile` sees the plain meaning, which it fuses.
    """
    return x.is_cuda and torch.version.hip is None and not torch.compiler.is_compiling() and not _PLAIN.get()
