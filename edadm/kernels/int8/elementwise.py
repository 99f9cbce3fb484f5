"""Element-wise functions of kernels: activations, and quantization to int8; Gluon's kernel wraps them too.

Reciprocals and powers are the GPU's own approximations, to an ulp or two; what is too small to be a normal
number becomes 0.
"""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl
from triton import knobs

INTERPRETED = tl.constexpr(knobs.runtime.interpret)
MAGIC = tl.constexpr(
    12582912.0
)  # 1.5 * 2^23: what is added to it has no fraction, and its last bits are the integer


@triton.jit
@no_type_check
def reciprocal(x):
    """The reciprocal 1 / x in one instruction, where a division takes ten."""
    if INTERPRETED:
        return 1.0 / x
    else:
        return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)


@triton.jit
@no_type_check
def power_of_two(x):
    """The power 2^x in one instruction."""
    if INTERPRETED:
        return tl.exp2(x)
    else:
        return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], tl.float32, True, 1)


@triton.jit
@no_type_check
def silu(x):
    """SiLU, `x * sigmoid(x)`."""
    return x * reciprocal(1.0 + power_of_two(x * -1.4426950408889634))


@triton.jit
@no_type_check
def gelu(x):
    """GELU, `x * (1 + erf(x / sqrt 2)) / 2`, as `max(x, 0) - |x| * erfc(|x| / sqrt 2) / 2`.

    The error function's complement is by Abramowitz and Stegun, 7.1.26, whose error is below 1.5e-7.
    """
    size = tl.abs(x)
    t = reciprocal(size * 0.23164188 + 1.0)  # 0.3275911 / sqrt 2
    series = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t
    return tl.maximum(x, 0.0) - size * 0.5 * series * power_of_two(x * x * -0.7213475204444817)  # log2(e) / 2


@triton.jit
@no_type_check
def load_grid(grid_ptr):
    """A grid from its pointer: inverse of the scale, smallest and largest integer plus `MAGIC`, and shift."""
    low, high = tl.load(grid_ptr + 1), tl.load(grid_ptr + 2)
    return 1.0 / tl.load(grid_ptr), low + MAGIC, high + MAGIC, tl.load(grid_ptr + 3).to(tl.int32)


@triton.jit
@no_type_check
def smoothed(inverse, smooth_ptr, channel, known):
    """The inverse of a grid's scale over the power of two of each channel, which is exact.

    Where nothing is smoothed the pointer is None and the inverse stays as it is; that is decided while the
    kernel is compiled.
    """
    if smooth_ptr is not None:
        inverse = tl.div_rn(inverse, tl.load(smooth_ptr + channel, mask=known, other=1.0))
    return inverse


@triton.jit
@no_type_check
def quantize(x, inverse, low, high, shift):
    """The int8 numbers of values on a grid, rounded half to even.

    Args:
        x: values.
        inverse: of the grid's scale, see `smoothed`.
        low: smallest integer, plus `MAGIC`.
        high: largest, likewise.
        shift: added to the integers.
    """
    near = tl.minimum(tl.maximum(x * inverse + MAGIC, low), high)
    return (near.to(tl.int32, bitcast=True) + shift).to(tl.int8)
