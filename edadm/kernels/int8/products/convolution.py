"""Convolutions and linear layers of int8 on a GPU: one place chooses the kernel and launches it."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from edadm.kernels.dispatch import has_kernels, refuse_other_types
from edadm.kernels.int8 import reference
from edadm.kernels.int8.device import Device
from edadm.kernels.int8.products import conv_tma, conv_wgmma, gemm, implicit_gemm
from edadm.kernels.int8.products.launch import Launch, choose
from edadm.kernels.int8.products.operands import Operands
from edadm.kernels.int8.tiles import Tiles

MOST_ELEMENTS = 2**31 - 1


def run(operands: Operands, launch: Launch) -> Float[Tensor, "n p q o"]:
    """The convolution of operands by the kernel of a launch that was chosen for them."""
    shape = operands.result_shape
    out = torch.empty(shape, dtype=operands.dtype, device=operands.x.device)
    rows = out.reshape(operands.problem.rows, operands.problem.columns)
    if launch.kernel == "conv_wgmma":
        conv_wgmma.run(operands, launch, rows)
    elif launch.kernel == "conv_tma":
        conv_tma.run(operands, launch, rows)
    elif launch.kernel in ("gemm", "gemm_tma"):
        gemm.run(operands, launch, rows)
    else:
        implicit_gemm.run(operands, launch, out)
    return out


def triton_convolution(
    x: Int8[Tensor, "n h w c"],
    weight: Int8[Tensor, "o k k c"],
    scale: Float[Tensor, " o"],
    offset: Float[Tensor, " o"],
    residual: Float[Tensor, "n p q o"] | None,
    stride: int,
    padding: int,
    zero: int,
    dtype: torch.dtype,
    wanted: Tiles | None = None,
) -> Float[Tensor, "n p q o"]:
    """The convolution by the kernel that is chosen for it; see `reference.convolution` for its arguments.

    Args:
        wanted: see `edadm.kernels.int8.products.launch.choose`.
    """
    operands = Operands.of(x, weight, scale, offset, residual, stride, padding, zero, dtype)
    return run(operands, choose(operands.problem, operands.layout, Device.of(x.device), wanted))


# said, not inferred: names in annotations are out of reach where jaxtyping's import hook checks them
_SCHEMA = (
    "(Tensor x, Tensor weight, Tensor scale, Tensor offset, Tensor? residual, SymInt stride, SymInt padding, "
    "SymInt zero, ScalarType dtype) -> Tensor"
)


@torch.library.custom_op("edadm::int8_convolution", mutates_args=(), schema=_SCHEMA)
def int8_convolution(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    offset: Tensor,
    residual: Tensor | None,
    stride: int,
    padding: int,
    zero: int,
    dtype: torch.dtype,
) -> Tensor:
    """`reference.convolution`, by the kernel on a GPU and by its plain meaning elsewhere."""
    refuse_other_types(torch.int8, x, weight)
    refuse_other_types(torch.float32, scale, offset)
    if not has_kernels(x, weight, scale, offset, residual):
        return reference.convolution(x, weight, scale, offset, residual, stride, padding, zero, dtype)
    batch = max(1, MOST_ELEMENTS // x[0].numel())  # the kernel's input offsets are 32-bit integers
    if len(x) <= batch:
        return triton_convolution(x, weight, scale, offset, residual, stride, padding, zero, dtype)
    parts = zip(x.split(batch), [None] * len(x) if residual is None else residual.split(batch), strict=False)
    return torch.cat(
        [triton_convolution(a, weight, scale, offset, b, stride, padding, zero, dtype) for a, b in parts]
    )


@int8_convolution.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    offset: Tensor,
    residual: Tensor | None,
    stride: int,
    padding: int,
    zero: int,
    dtype: torch.dtype,
) -> Tensor:
    """Shape and type of the result, for the compiler."""
    out = [(size + 2 * padding - weight.shape[1]) // stride + 1 for size in x.shape[1:3]]
    return x.new_empty((x.shape[0], *out, weight.shape[0]), dtype=dtype)
