"""A convolution of integers on a CPU, and its stride, padding, dilation and groups."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Float, Int8
from torch import Tensor


class Geometry(NamedTuple):
    """Stride, padding, dilation and groups of a convolution."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


class Problem(NamedTuple):
    """A convolution of integers, `conv((codes - zero_point) * scale, weight * weight_scale)`, padded with 0.

    Args:
        weight: signed integers.
        weight_scale: of each row; may be negative.
        scale: of the input grid.
        zero_point: of the input grid.
        geometry: stride and so on.
    """

    weight: Int8[Tensor, "rows c kh kw"]
    weight_scale: Float[Tensor, " rows"]
    scale: float
    zero_point: int
    geometry: Geometry = Geometry()
