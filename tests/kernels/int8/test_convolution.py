"""The integer kernel against its plain meaning; interpreted on the CPU where there is no GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from edadm.kernels.int8 import reference
from edadm.kernels.int8.products import launch as module
from edadm.kernels.int8.products.convolution import int8_convolution, triton_convolution
from edadm.kernels.int8.tiles import Tiles

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMALL = Tiles(16, 16, 32, 4, 2)
# images, height, width, channels, rows of the weight, side of the window, stride, padding, number in the
# padding
SHAPES = [
    (1, 5, 6, 3, 20, 3, 1, 1, 5),
    (2, 8, 8, 40, 18, 3, 2, 1, -128),
    (2, 4, 4, 64, 16, 3, 1, 0, 0),
    (3, 7, 5, 64, 16, 1, 1, 0, 0),
    (1, 1, 37, 96, 33, 1, 1, 0, -3),
    (2, 9, 9, 32, 8, 3, 2, 0, 0),
]


def integers(*shape: int, seed: int) -> Tensor:
    return torch.randint(
        -128, 128, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.int8
    ).to(DEVICE)


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


@pytest.mark.parametrize("splits", [1, 2, 4])
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_are_those_of_the_meaning_bit_for_bit(shape: tuple[int, ...], splits: int) -> None:
    images, height, width, channels, rows, side, stride, padding, zero = shape
    x, weight = (
        integers(images, height, width, channels, seed=0),
        integers(rows, side, side, channels, seed=1),
    )
    expected = reference.sums(x, weight, stride, padding, zero)
    assert expected.abs().max() < 2**24  # so that fp32 holds them
    one, none = torch.ones(rows, device=DEVICE), torch.zeros(rows, device=DEVICE)
    got = triton_convolution(
        x, weight, one, none, None, stride, padding, zero, torch.float32, SMALL._replace(splits=splits)
    )
    assert torch.equal(got, expected.float())


def test_operands_in_another_memory_layout_mean_the_same() -> None:
    x, weight = integers(2, 4, 5, 48, seed=0), integers(21, 3, 3, 48, seed=1)
    scale, offset, addend = numbers(21, seed=2), numbers(21, seed=3), numbers(2, 4, 5, 21, seed=4)
    others = [tensor.to(memory_format=torch.channels_last) for tensor in (x, weight, addend)]
    assert not any(tensor.is_contiguous() for tensor in others)
    expected = triton_convolution(x, weight, scale, offset, addend, 1, 1, -9, torch.float32, SMALL)
    got = triton_convolution(others[0], others[1], scale, offset, others[2], 1, 1, -9, torch.float32, SMALL)
    assert torch.equal(got, expected)


def test_sums_of_the_largest_products_do_not_wrap() -> None:
    channels = 2560  # the widest input of Stable Diffusion's 3x3 convolutions
    x = torch.full((1, 3, 3, channels), -128, dtype=torch.int8)
    weight = torch.full((1, 3, 3, channels), -128, dtype=torch.int8)
    assert reference.sums(x, weight).item() == 9 * channels * 2**14 < 2**31


def test_the_meaning_is_that_of_integer_arithmetic() -> None:
    x, weight = integers(1, 3, 3, 2, seed=0), integers(2, 3, 3, 2, seed=1)
    padded = F.pad(x.int(), (0, 0, 1, 1, 1, 1), value=7)
    sums = reference.sums(x, weight, 1, 1, 7)
    for row, column in ((0, 0), (1, 2), (2, 1)):
        assert (
            sums[0, row, column, 1] == (padded[0, row : row + 3, column : column + 3] * weight[1].int()).sum()
        )


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_scale_offset_and_addend(dtype: torch.dtype, splits: int) -> None:
    x, weight = integers(2, 4, 5, 48, seed=0), integers(21, 3, 3, 48, seed=1)
    scale, offset, addend = (
        numbers(21, seed=2) * 1e-5,
        numbers(21, seed=3),
        numbers(2, 4, 5, 21, seed=4).to(dtype),
    )
    arguments = (x, weight, scale, offset, addend, 1, 1, -9, dtype)
    expected = reference.convolution(*arguments)
    step = torch.finfo(dtype).eps  # fp32 sums in another order may round to a neighbour
    torch.testing.assert_close(
        triton_convolution(*arguments, SMALL._replace(splits=splits)), expected, rtol=2 * step, atol=2 * step
    )


def test_numbers_of_an_activation_are_the_codes_less_128() -> None:
    x = torch.tensor([0.5, 1.5, -0.5, -1.5, 2.5, 1000.0, -1000.0]) * 0.03
    codes = (torch.round(x / 0.03) + 91).clamp(0, 255)
    found = reference.quantize(x, torch.tensor(0.03), -91.0, 164.0, 91 - 128)
    assert torch.equal(found.int() + 128, codes.int())


def test_the_operation_knows_its_shape_without_computing() -> None:
    arguments = (
        integers(2, 7, 8, 16, seed=0),
        integers(8, 3, 3, 16, seed=1),
        torch.ones(8, device=DEVICE),
        torch.zeros(8, device=DEVICE),
    )
    for stride, padding in ((1, 0), (2, 1), (1, 1)):
        call = (*arguments, None, stride, padding, 3, torch.float32)
        assert torch.library.opcheck(int8_convolution, call, test_utils="test_faketensor") == {
            "test_faketensor": "SUCCESS"
        }


def test_tiles_are_those_of_the_problem_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(module, "tiles", lambda problem: asked.append(problem) or SMALL)
    x, weight, one = (
        integers(2, 5, 6, 32, seed=0),
        integers(16, 3, 3, 32, seed=1),
        torch.ones(16, device=DEVICE),
    )
    triton_convolution(x, weight, one, one, None, 2, 1, 0, torch.float32)
    triton_convolution(x, weight, one, one, None, 2, 1, 0, torch.float32, SMALL)
    assert [tuple(problem) for problem in asked] == [(18, 16, 32, 3, 2)]
