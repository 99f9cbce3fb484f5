"""The weights of a quantized layer as signed integers, as integer arithmetic and other programs want them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from edadm.errors import EdadmError
from edadm.nn.layers import QuantizedLayer


def signed_weight(
    layer: QuantizedLayer, bits: int = 8
) -> tuple[list[Int8[Tensor, "rows channels *s"]], list[Float[Tensor, " rows"]]]:
    """Per segment: weight codes minus their zero points, as int8, and the scale of each row.

    With 8 bits and zero point 127 a row may reach 128, which int8 does not: such a row is negated, and its
    scale with it.

    Args:
        layer: with codes.
        bits: of the signed numbers: 8, or 4 for a layer of at most 4 bits.

    Raises:
        EdadmError: a row fits neither way; grids of this package have zero points 2^(bits-1) or one less,
            which do.
    """
    assert layer.codes is not None
    end = 2 ** (bits - 1)
    grid = layer.weight_quantizer
    integers = layer.codes.to(torch.int16) - grid.grid(layer.weight.dim())[1].to(torch.int16)
    weights, scales = [], []
    for part, scale in zip(integers.split(layer.channel_sizes, 1), grid.scale.float().unbind(1), strict=True):
        sign = torch.where(part.flatten(1).amax(1) >= end, -1, 1).to(torch.int16)
        part = part * sign.reshape(-1, *[1] * (part.dim() - 1))
        if part.amin() < -end or part.amax() >= end:
            zero_points = f"{bits}-bit weights with zero points {end - 1} or {end}"
            raise EdadmError(
                f"int{bits} arithmetic needs {zero_points}; use backend 'simulated' for this model"
            )
        weights.append(part.to(torch.int8).contiguous())
        scales.append(scale * sign)
    return weights, scales
