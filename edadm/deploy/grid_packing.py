"""Packed grids: those of all quantizers in a file, together.

A tensor of its own costs more bytes in the header than it holds.

A zero point of a symmetric weight grid is one of two numbers (`edadm.quant.ranges.best_off_centre_range`), so
a bit says which.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import UInt8
from torch import Tensor

from edadm.nn.quantizer import Quantizer

WEIGHT_SCALES = "grids.weight_scales"
WEIGHT_ZERO_POINTS = "grids.weight_zero_points"
ACTIVATION_SCALES = "grids.activation_scales"
ACTIVATION_ZERO_POINTS = "grids.activation_zero_points"


def pack_bits(bits: UInt8[Tensor, " n"]) -> UInt8[Tensor, " bytes"]:
    """Zeros and ones, eight per byte; the first lies in the lowest bit, an odd end is padded with 0."""
    padded = torch.cat([bits, bits.new_zeros(-len(bits) % 8)]).reshape(-1, 8)
    return (padded << torch.arange(8, dtype=torch.uint8)).sum(dim=1, dtype=torch.uint8)


def unpack_bits(packed: UInt8[Tensor, " bytes"], count: int) -> UInt8[Tensor, " n"]:
    """The inverse of `pack_bits`."""
    return ((packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1).flatten()[:count]


def compact(grids: Mapping[str, Tensor], quantizers: Mapping[str, Quantizer]) -> dict[str, Tensor]:
    """Four tensors for `NAME.scale` and `NAME.zero_point` of all quantizers, each flat, sorted by name.

    Weights and activations stand apart.

    The weight zero points are bits: 1 says 2^(bits-1), 0 one less. A weight with any other zero point keeps
    all of its own
    under `NAME.zero_point`, beside bits that say nothing.
    """
    weights, activations = _names(quantizers)
    bits, exceptions = [], {}
    for name in weights:
        zero_points = grids[f"{name}.zero_point"].cpu()
        below = 2 ** (quantizers[name].bits - 1) - zero_points.int()
        if bool(((below != 0) & (below != 1)).any()):
            exceptions[f"{name}.zero_point"] = zero_points
        bits.append((below == 0).to(torch.uint8).flatten())
    return {
        WEIGHT_SCALES: _joined([grids[f"{name}.scale"] for name in weights], torch.float32),
        WEIGHT_ZERO_POINTS: pack_bits(_joined(bits, torch.uint8)),
        ACTIVATION_SCALES: _joined([grids[f"{name}.scale"] for name in activations], torch.float32),
        ACTIVATION_ZERO_POINTS: _joined([grids[f"{name}.zero_point"] for name in activations], torch.uint8),
        **exceptions,
    }


def expand(tensors: Mapping[str, Tensor], quantizers: Mapping[str, Quantizer]) -> dict[str, Tensor]:
    """The inverse of `compact`: scales (fp32) and zero points (uint8) by name, in the quantizers' shapes.

    Raises:
        KeyError: one of the four tensors is missing; its name is the argument.
        ValueError: one of them has another length or type.
    """
    weights, activations = _names(quantizers)
    counts = [sum(quantizers[name].scale.numel() for name in names) for names in (weights, activations)]
    packed = _checked(tensors, WEIGHT_ZERO_POINTS, -(-counts[0] // 8), torch.uint8)
    flat = {
        "weight.scale": _checked(tensors, WEIGHT_SCALES, counts[0], torch.float32),
        "weight.zero_point": unpack_bits(packed, counts[0]),
        "activation.scale": _checked(tensors, ACTIVATION_SCALES, counts[1], torch.float32),
        "activation.zero_point": _checked(tensors, ACTIVATION_ZERO_POINTS, counts[1], torch.uint8),
    }
    grids = {}
    for kind, names in (("weight", weights), ("activation", activations)):
        shapes = [quantizers[name].scale.shape for name in names]
        sizes = [shape.numel() for shape in shapes]
        for name, shape, scale, zero_point in zip(
            names,
            shapes,
            flat[f"{kind}.scale"].split(sizes),
            flat[f"{kind}.zero_point"].split(sizes),
            strict=True,
        ):
            if kind == "weight":
                zero_point = 2 ** (quantizers[name].bits - 1) - 1 + zero_point
            grids[f"{name}.scale"] = scale.reshape(shape)
            grids[f"{name}.zero_point"] = tensors.get(f"{name}.zero_point", zero_point.reshape(shape))
    return grids


def _names(quantizers: Mapping[str, Quantizer]) -> tuple[list[str], list[str]]:
    """Names of the quantizers of weights and of activations, sorted."""
    weights = sorted(name for name, quantizer in quantizers.items() if quantizer.rows is not None)
    return weights, sorted(quantizers.keys() - set(weights))


def _joined(pieces: list[Tensor], dtype: torch.dtype) -> Tensor:
    return (
        torch.cat([piece.cpu().to(dtype).flatten() for piece in pieces])
        if pieces
        else torch.zeros(0, dtype=dtype)
    )


def _checked(tensors: Mapping[str, Tensor], name: str, length: int, dtype: torch.dtype) -> Tensor:
    tensor = tensors[name]
    if tensor.shape != (length,) or tensor.dtype != dtype:
        raise ValueError(
            f"'{name}' has {tuple(tensor.shape)} {tensor.dtype}, the network's grids need ({length},) {dtype}"
        )
    return tensor
