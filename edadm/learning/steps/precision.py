"""Which arithmetic learning uses on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

Precision = Literal["tf32", "fp32", "bf16"]


@contextmanager
def arithmetic(precision: Precision) -> Iterator[None]:
    """Inside the context convolutions compute in TF32 or in full fp32, by algorithms that repeat bit for bit.

    `tf32` is what PyTorch does by default on such a chip (fp32 matrix products, TF32 convolutions), and so
    what the official runs had. `bf16` is `tf32` here and casts learning steps (see `learning_cast`).
    """
    cudnn = torch.backends.cudnn
    before = cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark
    cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = precision != "fp32", True, False
    try:
        yield
    finally:
        cudnn.allow_tf32, cudnn.deterministic, cudnn.benchmark = before


def learning_cast(precision: Precision, device: torch.device) -> torch.autocast:
    """The autocast of a learning step; without a cache, which a CUDA graph must not hold."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False)
