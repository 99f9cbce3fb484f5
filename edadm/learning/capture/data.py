"""The data that a unit learns from, and the layers whose outputs are its targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from edadm.config.methods import METHODS
from edadm.config.schema import Reconstruction
from edadm.learning.capture.arguments import Arguments
from edadm.networks.units.unit import Unit


@dataclass
class UnitData:
    """The inputs and targets that one unit learns from; rows are calibration samples.

    Tables may lie off the unit's device.

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
