"""The end of a residual block in fp32 on a GPU: both branches and their convolutions' biases, in one pass."""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

BLOCK = 2048


@triton.jit
@no_type_check
def add_kernel(x_ptr, other_ptr, bias_ptr, elements, channels, BLOCK: tl.constexpr):
    """Adds to `x` another tensor and a bias, both channels last."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < elements
    total = tl.load(x_ptr + at, mask=inside) + tl.load(bias_ptr + at % channels, mask=inside)
    tl.store(x_ptr + at, total + tl.load(other_ptr + at, mask=inside), mask=inside)


def triton_add_(
    x: Float[Tensor, "n c h w"], other: Float[Tensor, "n c h w"], bias: Float[Tensor, " c"]
) -> Float[Tensor, "n c h w"]:
    """The sum `x + bias + other` with channels last, in the memory of `x` if that has them so."""
    rows = x.movedim(1, -1).contiguous()
    add_kernel[(triton.cdiv(x.numel(), BLOCK),)](
        rows, other.movedim(1, -1).contiguous(), bias.contiguous(), x.numel(), x.shape[1], BLOCK=BLOCK
    )
    return rows.movedim(-1, 1)
