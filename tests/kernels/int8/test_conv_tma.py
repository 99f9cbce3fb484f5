"""Convolutions through tensor descriptors against their meaning; interpreted on a CPU without a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edadm.kernels.int8 import reference
from edadm.kernels.int8.device import Device
from edadm.kernels.int8.products.convolution import run
from edadm.kernels.int8.products.launch import choose
from edadm.kernels.int8.products.operands import Operands
from edadm.kernels.int8.tiles import Tiles

from .test_convolution import DEVICE, integers, numbers

SMALL = Tiles(32, 16, 32, 4, 2, kind="descriptor")
# images, height, width, channels, columns, side of the window; a box is half a row, a row, two rows, an
# image, two images
SHAPES = [
    (1, 2, 64, 32, 16, 3),
    (2, 3, 32, 16, 32, 3),
    (2, 4, 16, 80, 32, 3),
    (1, 4, 8, 48, 16, 5),
    (3, 4, 4, 32, 48, 3),
]


def operands(
    images: int, height: int, width: int, channels: int, columns: int, side: int
) -> tuple[Tensor, Tensor]:
    return integers(images, height, width, channels, seed=0), integers(columns, side, side, channels, seed=1)


def by_boxes(x: Tensor, weight: Tensor, *given: Tensor | None, dtype: torch.dtype) -> Tensor:
    """A convolution by the kernel that fetches boxes of pixels."""
    operands = Operands.of(x, weight, *given, 1, weight.shape[1] // 2, 0, dtype)
    launch = choose(operands.problem, operands.layout, Device.of(x.device), SMALL)
    assert launch.kernel == "conv_tma"
    return run(operands, launch)


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_are_those_of_the_meaning_bit_for_bit(shape: tuple[int, ...]) -> None:
    x, weight = operands(*shape)
    one, none = torch.ones(len(weight), device=DEVICE), torch.zeros(len(weight), device=DEVICE)
    found = by_boxes(x, weight, one, none, None, dtype=torch.float32)
    assert torch.equal(found, reference.sums(x, weight, 1, shape[-1] // 2, 0).float())


def test_a_single_image_may_have_any_stride_between_images() -> None:
    x, weight = operands(1, 4, 16, 32, 16, 3)
    one, none = torch.ones(16, device=DEVICE), torch.zeros(16, device=DEVICE)
    other = torch.as_strided(x, x.shape, (7, *x.stride()[1:]))
    assert other.is_contiguous()
    found = by_boxes(other, weight, one, none, None, dtype=torch.float32)
    assert torch.equal(found, reference.sums(x, weight, 1, 1, 0).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scale_offset_and_addend(dtype: torch.dtype) -> None:
    x, weight = operands(3, 4, 4, 48, 32, 3)
    given = numbers(32, seed=2) * 1e-4, numbers(32, seed=3), numbers(3, 4, 4, 32, seed=4).to(dtype)
    found = by_boxes(x, weight, *given, dtype=dtype)
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(
        found, reference.convolution(x, weight, *given, 1, 1, 0, dtype), rtol=2 * step, atol=2 * step
    )
