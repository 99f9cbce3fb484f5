"""The arguments of a unit: what its module is called with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn


def learned_part(output: Any) -> Tensor:
    """What of a unit's output is learned: a tensor, or of several streams of tokens all, behind each other.

    A block that makes nothing of a stream has None in its place.
    """
    if not isinstance(output, tuple):
        found: Tensor = output
        return found
    streams = [stream for stream in output if stream is not None]
    return streams[0] if len(streams) == 1 else torch.cat(streams, dim=1)


@dataclass
class Arguments:
    """The arguments of a unit's module, by position or by name.

    Attributes:
        tensors: those whose axis 0 counts rows.
        others: everything else.
    """

    tensors: dict[int | str, Tensor]
    others: dict[int | str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Arguments:
        """The arguments of one call."""
        named: dict[int | str, Any] = dict(enumerate(args)) | dict(kwargs)
        tensors = {key: value for key, value in named.items() if isinstance(value, Tensor)}
        return cls(tensors, {key: value for key, value in named.items() if key not in tensors})

    def rows(self, rows: slice | Tensor) -> Arguments:
        """The arguments with some rows of every tensor."""
        return Arguments({key: tensor[rows] for key, tensor in self.tensors.items()}, self.others)

    @property
    def main(self) -> int | str:
        """The argument that carries the main path: the first one."""
        return next(iter(self.tensors))

    def call(self, unit: nn.Module) -> Tensor:
        """The unit's output; tensors go to its device first."""
        parameter = next(unit.parameters(), None)
        tensors = (
            self.tensors
            if parameter is None
            else {key: tensor.to(parameter.device) for key, tensor in self.tensors.items()}
        )
        named = tensors | self.others
        positions = sorted(key for key in named if isinstance(key, int))
        output = unit(
            *(named[position] for position in positions),
            **{k: v for k, v in named.items() if isinstance(k, str)},
        )
        return learned_part(output)
