"""Layer normalisation on a GPU, from floating point to int8 numbers on the grids of the layers that follow.

A program has some rows, which it reads once. `edadm.kernels.int8.reference.layer_normalised` says what it
means; as in group normalisation, a value is multiplied by a grid's inverse instead of divided.
"""

from __future__ import annotations

from typing import no_type_check

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int8
from torch import Tensor

from edadm.kernels.dispatch import has_kernels, refuse_other_types
from edadm.kernels.int8 import reference
from edadm.kernels.int8.elementwise import load_grid, quantize
from edadm.kernels.int8.norms.launch import choose_layer_norm

WARPS = 4


@triton.jit
@no_type_check
def layer_norm_kernel(
    x_ptr, weight_ptr, bias_ptr, grids_ptr, out_ptr, rows, channels, eps, numel,
    ROWS: tl.constexpr, CHANNELS: tl.constexpr, GRIDS: tl.constexpr,
):  # fmt: skip
    """Writes int8 numbers of some rows on every grid."""
    row, channel = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS), tl.arange(0, CHANNELS)
    known = channel < channels
    there = (row < rows)[:, None] & known[None, :]
    place = row[:, None] * channels + channel[None, :]
    x = tl.load(x_ptr + place, mask=there, other=0.0).to(tl.float32)
    away = tl.where(known[None, :], x - (tl.sum(x, 1) / channels)[:, None], 0.0)
    deviation = tl.sqrt_rn(tl.sum(away * away, 1) / channels + eps)
    weight, bias = (
        tl.load(weight_ptr + channel, mask=known, other=0.0),
        tl.load(bias_ptr + channel, mask=known, other=0.0),
    )
    y = away * (1.0 / deviation)[:, None] * weight[None, :] + bias[None, :]
    for index in tl.static_range(GRIDS):
        inverse, low, high, shift = load_grid(grids_ptr + 4 * index)
        tl.store(out_ptr + place, quantize(y, inverse, low, high, shift), mask=there)
        out_ptr += numel


def triton_layer_normalised(
    x: Float[Tensor, "rows c"],
    weight: Float[Tensor, "1 c"],
    bias: Float[Tensor, "1 c"],
    eps: float,
    grids: Float[Tensor, "g 4"],
) -> Int8[Tensor, "g rows c"]:
    """The layer normalisation by the kernel; see `reference.layer_normalised` for its arguments."""
    x, (rows, channels) = x.contiguous(), x.shape
    launch, count = choose_layer_norm(rows, channels), len(grids)
    out = torch.empty((count, rows, channels), dtype=torch.int8, device=x.device)
    sizes = rows, channels, eps, x.numel(), launch.rows, launch.width, count
    layer_norm_kernel[launch.grid](x, weight, bias, grids, out, *sizes, num_warps=WARPS)
    return out


@torch.library.custom_op(
    "edadm::int8_layer_normalised",
    mutates_args=(),
    schema="(Tensor x, Tensor weight, Tensor bias, float eps, Tensor grids) -> Tensor",
)
def int8_layer_normalised(x: Tensor, weight: Tensor, bias: Tensor, eps: float, grids: Tensor) -> Tensor:
    """`reference.layer_normalised`, by the kernel on a GPU and by its plain meaning elsewhere."""
    refuse_other_types(torch.float32, weight, bias, grids)
    return (triton_layer_normalised if has_kernels(x, weight, bias, grids) else reference.layer_normalised)(
        x, weight, bias, eps, grids
    )


@int8_layer_normalised.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor, eps: float, grids: Tensor) -> Tensor:
    """Shape and type of the result, for the compiler."""
    return x.new_empty((len(grids), *x.shape), dtype=torch.int8)
