"""Uniform random numbers as a function of a key, the learning step and the element, drawn in place.

A generator with hidden state would cost a pass over memory per mask and could not be shared by an engine, its
reference and another device. Here element i of a mask is a hash of (key, step, i): whoever knows the three
knows the number. The hash is `lowbias32` (Chris Wellons, "Prospecting for Hash Functions"; public domain), 32
bits in, 32 bits out.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

GOLDEN = (
    -1640531527
)  # 2^32 divided by the golden ratio, as a signed integer: odd, so that steps get different keys
MULTIPLIERS = (2146121005, -2073254261)  # those of lowbias32, as signed integers


def scrambled_(x: Int[Tensor, "*s"]) -> Int[Tensor, "*s"]:
    """The hash lowbias32 of every int32 element, in place."""
    shifted = x >> 16
    shifted &= 0xFFFF  # torch shifts signed integers arithmetically
    x ^= shifted
    x *= MULTIPLIERS[0]
    torch.bitwise_right_shift(x, 15, out=shifted)
    shifted &= 0x1FFFF
    x ^= shifted
    x *= MULTIPLIERS[1]
    torch.bitwise_right_shift(x, 16, out=shifted)
    shifted &= 0xFFFF
    x ^= shifted
    return x


def threshold(probability: float) -> int:
    """The largest signed 32-bit number that is drawn with at most `probability`, which lies in (0, 1]."""
    return round(probability * 2**32) - 2**31 - 1


@dataclass(frozen=True)
class Stream:
    """A stream of uniform numbers that moves on with a step counter.

    Attributes:
        key: signed 32-bit integer; different consumers have different keys.
        step: int32 scalar on the device where numbers are drawn; whoever owns the loop counts it up.
    """

    key: int
    step: Int[Tensor, ""]

    @classmethod
    def of(cls, *key: int | str, step: Int[Tensor, ""]) -> Stream:
        """A stream whose key is a function of names and numbers alone, e.g. `(seed, "reconstruct", unit)`."""
        digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
        return cls(int.from_bytes(digest[:4], "big", signed=True), step)

    def child(self, name: int | str) -> Stream:
        """An independent stream for one consumer, on the same step counter."""
        return Stream.of(self.key, name, step=self.step)

    def bits(self, count: int) -> Int[Tensor, " count"]:
        """Random numbers, `count` of them, uniform over all signed 32-bit integers."""
        start = scrambled_(self.step * GOLDEN + self.key)
        return scrambled_(torch.arange(count, dtype=torch.int32, device=self.step.device).add_(start))

    def below(self, probability: float, like: Tensor) -> Bool[Tensor, "..."]:
        """A mask that is true with `probability`; elements count in the order in which `like` lies in memory.

        `like` is dense.
        """
        return (self.bits(like.numel()) <= threshold(probability)).as_strided(like.shape, like.stride())
