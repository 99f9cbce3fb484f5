"""Ranges before any learning: of weights from the weights, of activations from calibration batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from edadm.config.schema import Bits
from edadm.errors import EdadmError
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows
from edadm.nn.insert import activation_quantizers, quantized_layers
from edadm.nn.layers import QuantizedLayer
from edadm.nn.quantizer import Quantizer
from edadm.nn.sound import float_flaws
from edadm.quant.affine import scale_and_zero_point
from edadm.quant.observer import RunningRange
from edadm.quant.ranges import best_off_centre_range, best_range, sidedness


def set_weight_grid(layer: QuantizedLayer, off_centre: bool = False) -> None:
    """Sets the best symmetric weight grid per output channel and segment (method, 3.2).

    It is one-sided where the whole tensor is.

    Args:
        layer: its weight must be in floating point.
        off_centre: let every channel choose which of the two middle levels is its zero.
    """
    quantizer = layer.weight_quantizer
    grids = []
    for part in layer.weight.detach().split(layer.channel_sizes, dim=1):
        sides, values = sidedness(part.min().item(), part.max().item()), part.flatten(1)
        both = off_centre and 0 not in sides
        best = (
            best_off_centre_range(values, quantizer.bits)
            if both
            else best_range(values, quantizer.bits, sides)
        )
        grids.append(scale_and_zero_point(best.low, best.high, quantizer.bits))
    scales, zero_points = zip(*grids, strict=True)
    quantizer.set_grid(torch.stack(scales, dim=1), torch.stack(zero_points, dim=1))


def cover_weights(layer: QuantizedLayer) -> None:
    """Grids that just cover all weights, without a search: for timing, where only cost matters."""
    extent = torch.stack(
        [part.abs().flatten(1).amax(1) for part in layer.weight.detach().split(layer.channel_sizes, 1)], 1
    )
    layer.weight_quantizer.set_grid(*scale_and_zero_point(-extent, extent, layer.weight_quantizer.bits))


@contextmanager
def observing(unet: nn.Module, bits: Bits) -> Iterator[dict[str, list[RunningRange]]]:
    """Inside the context every batch moves the grid of each activation quantizer before it is used.

    So the layers in front of a quantizer already compute with their own running grids, as in the official
    code.
    """
    ranges: dict[str, list[RunningRange]] = {}
    handles = []

    def observe(name: str, quantizer: Quantizer, x: Tensor, running: list[RunningRange]) -> None:
        if not bool(x.isfinite().all()):
            raise EdadmError(
                f"the input of {name} is not finite; look for such numbers in the weights and the "
                "calibration rows"
            )
        parts = x.split(list(quantizer.segments), dim=1) if len(quantizer.segments) > 1 else [x]
        grids = [one.update(part) for one, part in zip(running, parts, strict=True)]
        scales, zero_points = zip(*grids, strict=True)
        quantizer.set_grid(torch.stack(scales), torch.stack(zero_points))

    for name, quantizer in activation_quantizers(unet).items():
        asymmetric = bits.activation_grid == "asymmetric"
        running = [
            RunningRange(quantizer.bits, bits.range_momentum, bits.range_bins, asymmetric)
            for _ in quantizer.segments
        ]
        ranges[name] = running
        handles.append(
            quantizer.register_forward_pre_hook(
                lambda module, inputs, n=name, r=running: observe(n, module, inputs[0], r)
            )
        )
    try:
        yield ranges
    finally:
        for handle in handles:
            handle.remove()


def refuse_flawed_weights(unet: nn.Module) -> None:
    """Refuses a network with a weight that is no number to search a grid for.

    Raises:
        EdadmError: names the first that is not finite.
    """
    for flaw in float_flaws(unet.named_parameters()):
        raise EdadmError(f"{flaw}; convert the checkpoint again, and look for such numbers in it")


@torch.no_grad()
def set_ranges(
    unet: nn.Module,
    inputs: Rows,
    bits: Bits,
    on_batch: Callable[[int], None] = lambda rows: None,
) -> None:
    """Sets every grid of a quantized U-Net and folds its weights by rounding to nearest.

    Args:
        unet: a network after `quantize_network`, its weights still in floating point.
        inputs: of the network, the calibration rows.
        bits: batch size, momentum and histogram bins of the activation ranges.
        on_batch: told the number of rows after each batch.

    Raises:
        EdadmError: a weight, or an input of a quantizer, is not finite.
    """
    refuse_flawed_weights(unet)
    for layer in quantized_layers(unet).values():
        set_weight_grid(layer, bits.weight_zero_point == "either")
        layer.set_codes(layer.nearest_codes())
    with observing(unet, bits):
        for rows in inputs.split(bits.range_batch_size):
            network_call(unet, rows)
            on_batch(len(rows))
