"""Convolutions through tensor descriptors against their plain meaning; interpreted on the CPU where there is no GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edadm.kernels.int8 import reference
from edadm.kernels.int8.products import convolution as dispatching
from edadm.kernels.int8.products import gemm
from edadm.kernels.int8.products.conv_tma import box, triton_image
from edadm.kernels.int8.products.convolution import triton_convolution
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


@pytest.mark.parametrize("shape", SHAPES)
def test_sums_are_those_of_the_meaning_bit_for_bit(shape: tuple[int, ...]) -> None:
    x, weight = operands(*shape)
    one, none = torch.ones(len(weight), device=DEVICE), torch.zeros(len(weight), device=DEVICE)
    found = triton_image(x, weight, one, none, None, torch.float32, SMALL)
    assert found is not None
    assert torch.equal(found, reference.sums(x, weight, 1, shape[-1] // 2, 0).float())


def test_a_single_image_may_have_any_stride_between_images() -> None:
    x, weight = operands(1, 4, 16, 32, 16, 3)
    one, none = torch.ones(16, device=DEVICE), torch.zeros(16, device=DEVICE)
    other = torch.as_strided(x, x.shape, (7, *x.stride()[1:]))
    assert other.is_contiguous()
    found = triton_image(other, weight, one, none, None, torch.float32, SMALL)
    assert found is not None
    assert torch.equal(found, reference.sums(x, weight, 1, 1, 0).float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scale_offset_and_addend(dtype: torch.dtype) -> None:
    x, weight = operands(3, 4, 4, 48, 32, 3)
    given = numbers(32, seed=2) * 1e-4, numbers(32, seed=3), numbers(3, 4, 4, 32, seed=4).to(dtype)
    found = triton_image(x, weight, *given, dtype, SMALL)
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(
        found, reference.convolution(x, weight, *given, 1, 1, 0, dtype), rtol=2 * step, atol=2 * step
    )


def test_boxes_fill_images_row_after_row() -> None:
    assert box(128, 32, 32) == (1, 4, 32)
    assert box(128, 8, 8) == (2, 8, 8)
    assert box(128, 4, 4) == (8, 4, 4)
    assert box(128, 256, 256) == (1, 1, 128)
    assert box(128, 3, 64) is None  # two rows at a time
    assert box(128, 6, 24) is None
    assert box(128, 2, 512) == (1, 1, 128)
    assert box(512, 2, 512) is None  # longer than a box may be


# stride, padding, number in the padding, channels, kind, height: what sends a convolution to the kernel that
# does all of them
OTHERS = {
    "stride": (2, 1, 0, 32, "descriptor", 4),
    "smaller output": (1, 0, 0, 32, "descriptor", 4),
    "padding": (1, 1, -5, 32, "descriptor", 4),
    "rows of 24 bytes": (1, 1, 0, 24, "descriptor", 4),
    "kind": (1, 1, 0, 32, "window", 4),
    "size": (1, 1, 0, 32, "descriptor", 5),
    "none": (1, 1, 0, 32, "descriptor", 4),
}


@pytest.mark.parametrize("reason", OTHERS)
def test_convolutions_go_through_descriptors_where_these_fit(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stride, padding, zero, channels, kind, height = OTHERS[reason]
    x, weight = operands(2, height, 16, channels, 16, 3)
    one, none, done = torch.ones(16, device=DEVICE), torch.zeros(16, device=DEVICE), []
    monkeypatch.setattr(dispatching, "triton_image", lambda *a: done.append(triton_image(*a)) or done[-1])
    found = triton_convolution(
        x, weight, one, none, None, stride, padding, zero, torch.float32, SMALL._replace(kind=kind)
    )
    assert torch.equal(found, reference.sums(x, weight, stride, padding, zero).float())
    assert any(result is not None for result in done) == (reason == "none")


def test_older_devices_have_no_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemm, "_reads_blocks", lambda _: False)
    x, weight = operands(2, 4, 16, 32, 16, 3)
    one = torch.ones(16, device=DEVICE)
    assert triton_image(x, weight, one, one, None, torch.float32, SMALL) is None
