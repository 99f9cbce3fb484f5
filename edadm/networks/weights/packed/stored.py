"""A tensor that lies in a file: what it is like, and how it is fetched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Stored:
    """A tensor in a file, not read yet.

    Args:
        dtype: as PyTorch calls it, without `torch.`.
        shape: its sizes.
        load: reads it.
    """

    dtype: str
    shape: tuple[int, ...]
    load: Callable[[], Tensor] = field(repr=False)


@dataclass(frozen=True, eq=False)
class Container:
    """A file of weights, opened: how it is packed, what it holds, and what was written beside it.

    Args:
        kind: how it is packed, in words.
        content: tensors that are not read yet, in dictionaries and lists as they were saved.
        metadata: of a safetensors file.
        note: a sentence for whoever reads its tensors.
    """

    kind: str
    content: object
    metadata: dict[str, str] = field(default_factory=dict)
    note: str = ""
