"""Rotation: blocks of linear layers' channels are multiplied by Hadamard matrices, which spread outliers.

The paper is QuaRot (arXiv 2404.00456), its form for diffusion ConvRot (arXiv 2512.03673): the weight is
rotated here, once, and the input while the network runs. `edadm.quant.rotation` has the matrices.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from edadm.config.schema import Bits
from edadm.networks.inputs import Rows
from edadm.nn.insert import transformed_layers


def rotate(network: nn.Module, inputs: Rows, bits: Bits, on_batch: Callable[[int], None]) -> None:
    """Rotates all layers whose scheme says so; what the network computes stays, up to rounding.

    Args:
        network: after `quantize_network`, its weights still in floating point, smoothed if they are to be.
        inputs: of the network; not looked at.
        bits: the settings; schemes were derived from them.
        on_batch: is told nothing.
    """
    for layer in transformed_layers(network).values():
        layer.rotate()
