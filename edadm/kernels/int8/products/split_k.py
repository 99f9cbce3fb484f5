"""The epilogue of products whose int32 sums several programs add up in parts, once all are there."""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl
from jaxtyping import Float, Int32
from torch import Tensor

BLOCK = 1024


@triton.jit
@no_type_check
def finish_kernel(
    sums_ptr,
    scale_ptr,
    offset_ptr,
    residual_ptr,
    out_ptr,
    numel,
    columns,
    ADDS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Applies the epilogue, scale, offset and residual, to int32 sums that several programs added up."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside, column = at < numel, at % columns
    result = tl.load(sums_ptr + at, mask=inside, other=0).to(tl.float32) * tl.load(
        scale_ptr + column
    ) + tl.load(offset_ptr + column)
    if ADDS:
        result += tl.load(residual_ptr + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + at, result.to(out_ptr.dtype.element_ty), mask=inside)


def finish(
    sums: Int32[Tensor, "*n o"],
    scale: Float[Tensor, " o"],
    offset: Float[Tensor, " o"],
    residual: Tensor | None,
    out: Float[Tensor, "*n o"],
) -> None:
    """Fills `out` from int32 sums; see `edadm.kernels.int8.reference.convolution`."""
    added, columns = out if residual is None else residual, len(scale)
    finish_kernel[(triton.cdiv(out.numel(), BLOCK),)](
        sums, scale, offset, added, out, out.numel(), columns, residual is not None, BLOCK
    )
