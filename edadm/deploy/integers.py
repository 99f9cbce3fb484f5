"""The weights of a quantized layer as signed integers, as integer arithmetic and other programs want them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from edadm.errors import EdadmError
from edadm.nn.layers import QuantizedLayer


def signed_weight(layer: QuantizedLayer) -> tuple[list[Int8[Tensor, "rows channels *s"]], list[Float[Tensor, " rows"]]]:
    """Per segment: weight codes minus their zero points, as int8, and the scale of each row.

    With 8 bits and zero point 127 a row may reach 128, which int8 does not: such a row is negated, and its scale with it.

    Raises:
        EdadmError: a row fits neither way; grids of this package have zero points 2^(bits-1) or one less, which do.
    """
    assert layer.codes is not None
    grid = layer.weight_quantizer
    integers = layer.codes.to(torch.int16) - grid.grid(layer.weight.dim())[1].to(torch.int16)
    weights, scales = [], []
    for part, scale in zip(integers.split(layer.channel_sizes, 1), grid.scale.float().unbind(1), strict=True):
        sign = torch.where(part.flatten(1).amax(1) > 127, -1, 1).to(torch.int16)
        part = part * sign.reshape(-1, *[1] * (part.dim() - 1))
        if part.amin() < -128 or part.amax() > 127:
            raise EdadmError("int8 arithmetic needs 8-bit weights with zero points 127 or 128; use backend 'simulated' for this model")
        weights.append(part.to(torch.int8).contiguous())
        scales.append(scale * sign)
    return weights, scales
