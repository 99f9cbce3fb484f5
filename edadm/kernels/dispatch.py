"""Whether an operation runs its Triton kernel or its meaning in plain PyTorch: one rule for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from edadm.errors import EdadmError

_PLAIN = ContextVar("plain", default=False)


@contextmanager
def without_kernels() -> Iterator[None]:
    """Runs the plain meaning of every operation inside the context, to measure against."""
    token = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(token)


def has_kernels(x: Tensor, *others: Tensor | None) -> bool:
    """Whether an operation on `x` launches its kernel, as on an Nvidia GPU.

    `torch.compile` sees the plain meaning, which it fuses.

    Args:
        x: says the device.
        others: operands that the kernel reads, too.

    Raises:
        EdadmError: they lie elsewhere.
    """
    refuse_scattered(x, *others)
    return x.is_cuda and torch.version.hip is None and not torch.compiler.is_compiling() and not _PLAIN.get()


def refuse_scattered(x: Tensor, *others: Tensor | None) -> None:
    """Refuses operands on several devices, of which a kernel would take all for memory of its own.

    Raises:
        EdadmError: the first that lies elsewhere than `x`.
    """
    for other in others:
        if other is not None and other.device != x.device:
            raise EdadmError(
                f"a part of this network lies on '{other.device}' and was given numbers on '{x.device}'; "
                "move network and inputs to one device with .to(device)"
            )


def refuse_other_types(wanted: torch.dtype, *operands: Tensor | None) -> None:
    """Refuses operands that a kernel would read as numbers of another type.

    Raises:
        EdadmError: the first that has another type.
    """
    for operand in operands:
        if operand is not None and operand.dtype != wanted:
            raise EdadmError(
                f"integers of this network are computed with {wanted}, and were given {operand.dtype}; "
                "leave its parts in the types that they were loaded in, and call it outside of autocast"
            )
