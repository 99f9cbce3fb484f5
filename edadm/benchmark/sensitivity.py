"""How far images move when the weights of one layer alone lie on their grid, and which layers to spare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edadm.nn.insert import disabled, quantized_layers
from edadm.passes.ranges import set_weight_grid

WIDE = 8  # bits of layers that are spared
Sample = Callable[[nn.Module], Float[Tensor, "n c h w"]]


@dataclass(frozen=True)
class LayerCost:
    """What it costs to quantize the weights of one layer.

    Attributes:
        name: of the layer.
        weights: how many it has.
        bits: of each.
        error: mean square by which the sampler's final latents move, its median over images.
    """

    name: str
    weights: int
    bits: int
    error: float

    @property
    def extra_bytes(self) -> float:
        """Bytes by which a file grows if the layer has 8 bits instead."""
        return self.weights * (WIDE - self.bits) / 8


@torch.no_grad()
def layer_costs(
    quantized: nn.Module, sample: Sample, on_layer: Callable[[int], None] = lambda layers: None
) -> list[LayerCost]:
    """The cost of every quantized layer, its weights rounded to nearest, all else in floating point.

    Args:
        quantized: from `quantized_copy`, without grids or codes; left as it was but for its grids.
        sample: runs the sampler over a network from the same noise every time, to its final latents.
        on_layer: told 1 after each layer.
    """
    found = []
    with disabled(quantized):
        exact = sample(quantized)
        for name, layer in quantized_layers(quantized).items():
            weight = layer.weight.data
            set_weight_grid(layer, off_centre=True)
            layer.set_codes(layer.nearest_codes())
            moved = (sample(quantized) - exact).square().flatten(1).mean(1)
            layer.codes, layer.weight.data = None, weight
            found.append(LayerCost(name, weight.numel(), layer.weight_quantizer.bits, moved.median().item()))
            on_layer(1)
    return found


def worth_sparing(costs: Sequence[LayerCost], share: float) -> list[str]:
    """Names of layers to give 8 bits, those with the most error per further byte first.

    Args:
        costs: of all layers.
        share: how many bytes that may cost, in shares of the bytes of all weights.
    """
    left = share * sum(cost.weights * cost.bits / 8 for cost in costs)
    chosen = []
    narrow = [cost for cost in costs if cost.bits < WIDE]
    for cost in sorted(narrow, key=lambda cost: cost.error / cost.extra_bytes, reverse=True):
        if cost.extra_bytes <= left:
            chosen.append(cost.name)
            left -= cost.extra_bytes
    return chosen
