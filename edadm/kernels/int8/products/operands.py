"""The operands of a convolution of int8 numbers, and the numbers by which its kernel is chosen."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int8
from torch import Tensor

from edadm.kernels.int8.products.launch import ALIGNMENT, Layout
from edadm.kernels.int8.tiles import Problem


class Operands(NamedTuple):
    """Contiguous operands of a convolution; see `edadm.kernels.int8.reference.convolution`."""

    x: Int8[Tensor, "n h w c"]
    weight: Int8[Tensor, "o k k c"]
    scale: Float[Tensor, " o"]
    offset: Float[Tensor, " o"]
    residual: Float[Tensor, "n p q o"] | None
    stride: int
    padding: int
    zero: int
    dtype: torch.dtype

    @classmethod
    def of(
        cls,
        x: Int8[Tensor, "n h w c"],
        weight: Int8[Tensor, "o k k c"],
        scale: Float[Tensor, " o"],
        offset: Float[Tensor, " o"],
        residual: Float[Tensor, "n p q o"] | None,
        stride: int,
        padding: int,
        zero: int,
        dtype: torch.dtype,
    ) -> Operands:
        """The operands in memory as kernels want them, which know no strides.

        `.to(memory_format=...)` changes those of a weight.
        """
        added = None if residual is None else residual.contiguous()
        return cls(x.contiguous(), weight.contiguous(), scale, offset, added, stride, padding, zero, dtype)

    @property
    def result_shape(self) -> tuple[int, int, int, int]:
        """Images, height, width and channels of the result."""
        count, height, width, _ = self.x.shape
        columns, side = self.weight.shape[:2]
        high, wide = ((size + 2 * self.padding - side) // self.stride + 1 for size in (height, width))
        return count, high, wide, columns

    @property
    def problem(self) -> Problem:
        """The convolution as a GEMM."""
        count, high, wide, columns = self.result_shape
        return Problem(count * high * wide, columns, self.x.shape[3], self.weight.shape[1], self.stride)

    @property
    def matrices(self) -> tuple[Int8[Tensor, "pixels c"], Int8[Tensor, "o kkc"]]:
        """Input and weight as matrices: a row per pixel, and a row per output channel."""
        count, height, width, channels = self.x.shape
        return self.x.reshape(count * height * width, channels), self.weight.reshape(len(self.weight), -1)

    @property
    def layout(self) -> Layout:
        """How the operands lie in memory, as far as the choice of a kernel depends on it."""
        residual = self.residual
        return Layout(
            height=self.x.shape[1],
            width=self.x.shape[2],
            padding=self.padding,
            pads_zero=self.zero == 0,
            is_aligned=all(map(is_aligned, self.matrices)),
            residual_is_aligned=residual is None or is_aligned(residual.reshape(-1, residual.shape[-1])),
            result_bytes=self.dtype.itemsize,
        )


def is_aligned(matrix: Tensor) -> bool:
    """Whether a row-major matrix, and its rows, begin where a descriptor can read them."""
    return matrix.data_ptr() % ALIGNMENT == 0 and matrix.stride(0) % ALIGNMENT == 0
