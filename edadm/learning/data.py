"""The data of a unit: the arguments of its calls, and the targets of its reconstruction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from edadm.config.methods import METHODS
from edadm.config.schema import Reconstruction
from edadm.networks.unit import Unit


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
        """From those of one call."""
        named: dict[int | str, Any] = dict(enumerate(args)) | dict(kwargs)
        tensors = {key: value for key, value in named.items() if isinstance(value, Tensor)}
        return cls(tensors, {key: value for key, value in named.items() if key not in tensors})

    @classmethod
    def joined(cls, batches: Sequence[Arguments]) -> Arguments:
        """The rows of several calls in one."""
        return cls(
            {key: torch.cat([batch.tensors[key] for batch in batches]) for key in batches[0].tensors},
            batches[0].others,
        )

    def rows(self, rows: slice | Tensor) -> Arguments:
        """Some rows of every tensor."""
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
        return output[0] if isinstance(output, tuple) else output


@dataclass
class UnitData:
    """What one unit learns from; rows are calibration samples. Tables may lie off the unit's device.

    Attributes:
        quantized: arguments when all units before it are quantized.
        exact: arguments in the float network.
        target: output of the float unit on its float arguments.
        layer_targets: outputs of the float unit's inner layers, by name within the unit.
        held_out: so many rows at the end are not learned from.
        channels_last: inner layers' outputs are (rows, tokens, channels) where the original network has 1x1
            convolutions.
        far: groups of tables of which only the rows of one step are on the device while it learns: `inputs`
            (main arguments), `others`, `target`, `layer:NAME`.
    """

    quantized: Arguments
    exact: Arguments
    target: Tensor
    layer_targets: dict[str, Tensor]
    held_out: int = 0
    channels_last: bool = False
    far: frozenset[str] = frozenset()

    def layer_factor(self, name: str) -> float:
        """The factor that turns a layer error summed over axis 1 into one summed over channels.

        The original sums over channels (method, 4.3).
        """
        shape = self.layer_targets[name].shape
        return shape[-1] / shape[1] if self.channels_last else 1.0

    @property
    def learned(self) -> int:
        """Number of rows that are learned from."""
        return len(self.target) - self.held_out


def inner_layers(unit: Unit, settings: Reconstruction) -> list[str]:
    """The inner layers of a unit that have a layer error: all but the last, or none (method, 4.3).

    Returns:
        names within the unit.
    """
    has_errors = METHODS[settings.method].layer_errors and settings.layer_weight > 0
    if not has_errors or unit.kind in settings.without_layer_errors:
        return []
    return [layer.removeprefix(unit.name + ".") for layer in unit.layers[:-1]]


@contextmanager
def listening(unit: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collects the outputs of some of a unit's layers at every forward inside the context.

    Args:
        unit: the module.
        names: of layers within it; '' is the unit itself.
    """
    outputs: dict[str, Tensor] = {}
    handles = [
        unit.get_submodule(name).register_forward_hook(
            lambda _, inputs, output, n=name: outputs.__setitem__(n, output)
        )
        for name in names
    ]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
