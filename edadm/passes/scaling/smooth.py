"""Smoothing: what differs between a layer's input channels moves into its weight, in closed form.

`edadm.quant.transforms` has the formula. Layers that one norm feeds get the same factors, from the weights of
all of them together, so that an integer network can move them into the norm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from edadm.config.schema import Bits
from edadm.errors import EdadmError
from edadm.networks.families import family_of, network_call
from edadm.networks.inputs import Rows
from edadm.nn.insert import disabled, quantized_layers
from edadm.nn.layers import QuantizedConv2d, QuantizedLayer
from edadm.passes.ranges import refuse_flawed_weights
from edadm.quant.policy import smoothing_strength
from edadm.quant.transforms import smoothing_exponents


@torch.no_grad()
def smooth(
    unet: nn.Module, inputs: Rows, bits: Bits, on_batch: Callable[[int], None] = lambda rows: None
) -> None:
    """Sets the factors of all layers that are smoothed; the network's output stays as it is, bit for bit.

    Those that are learned are only looked at: their inputs must be finite, too.

    Args:
        unet: a network after `quantize_network`, its weights still in floating point.
        inputs: of the network, the calibration rows.
        bits: how strongly layers are smoothed, and rows per forward pass.
        on_batch: told the number of rows after each batch; there is none where no layer is smoothed.

    Raises:
        EdadmError: a weight, or the input of a layer, is not finite.
    """
    layers = {name: layer for name, layer in quantized_layers(unet).items() if layer.smooth is not None}
    if not layers:
        return
    refuse_flawed_weights(unet)
    with disabled(unet), _measuring(layers) as extents:
        for rows in inputs.split(bits.range_batch_size):
            network_call(unet, rows)
            on_batch(len(rows))
    for name, extent in extents.items():
        if not bool(extent.isfinite().all()):
            raise EdadmError(
                f"the input of {name} is not finite; look for such numbers in the weights and the "
                "calibration rows"
            )
    for names, strength in _groups(unet, layers, bits):
        of_inputs = torch.stack([extents[name] for name in names]).amax(0)
        of_weights = torch.stack([_largest(layers[name].weight, 1) for name in names]).amax(0)
        for name in names:
            layers[name].set_smoothing(smoothing_exponents(of_inputs, of_weights, strength))


def _largest(values: Tensor, axis: int) -> Tensor:
    """The largest magnitude of each channel, which lie along an axis."""
    return values.detach().abs().movedim(axis, 0).flatten(1).amax(1).float()


@contextmanager
def _measuring(layers: Mapping[str, QuantizedLayer]) -> Iterator[dict[str, Tensor]]:
    """Inside the context, the largest magnitudes of the channels of each layer's input, by its name."""
    extents = {name: layer.weight.new_zeros(layer.weight.shape[1]) for name, layer in layers.items()}

    def measure(name: str, axis: int, x: Tensor) -> None:
        extents[name] = torch.maximum(extents[name], _largest(x, axis))

    handles = []
    for name, layer in layers.items():
        axis = 1 if isinstance(layer, QuantizedConv2d) else -1
        handles.append(
            layer.register_forward_pre_hook(lambda _, given, n=name, a=axis: measure(n, a, given[0]))
        )
    try:
        yield extents
    finally:
        for handle in handles:
            handle.remove()


def groups_of(unet: nn.Module, layers: Iterable[str]) -> list[list[str]]:
    """The names of layers in groups that share their factors: those of one norm together, others alone."""
    left, groups = dict.fromkeys(layers), []
    for coupling in family_of(unet).couplings(unet):
        groups.append([name for name in coupling.layers if name in left])
        for name in groups[-1]:
            del left[name]
    return [names for names in [*groups, *([name] for name in left)] if names]


def _groups(
    unet: nn.Module, layers: Mapping[str, QuantizedLayer], bits: Bits
) -> Iterator[tuple[list[str], float]]:
    """Groups of layers that are smoothed equally strongly, and how strongly that is."""
    strengths = {name: smoothing_strength(name, bits) for name in layers}
    for names in groups_of(unet, layers):
        for strength in dict.fromkeys(strengths[name] for name in names):
            if strength is not None:
                yield [name for name in names if strengths[name] == strength], strength
