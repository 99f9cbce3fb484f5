"""The random numbers of `edadm.quant.streams`, drawn inside Triton kernels."""

from __future__ import annotations

from typing import no_type_check

import triton
import triton.language as tl


@triton.jit
@no_type_check
def _scrambled(x):
    """lowbias32 of every element; equals `edadm.quant.streams.scrambled_`."""
    x ^= x >> 16
    x *= 0x7FEB352D
    x ^= x >> 15
    x *= 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
@no_type_check
def drawn_below(offsets, key, step, threshold):
    """Whether the numbers of a stream at `offsets` are at most `threshold`; equals `Stream.below`."""
    golden: tl.constexpr = 0x9E3779B9
    start = _scrambled(step.to(tl.uint32) * golden + key.to(tl.uint32))
    bits = _scrambled(offsets.to(tl.uint32) + start)
    return bits.to(tl.int32, bitcast=True) <= threshold
