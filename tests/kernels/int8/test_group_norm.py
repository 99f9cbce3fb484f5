"""Group normalisation to int8 numbers against its meaning; interpreted on a CPU without a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from edadm.kernels.int8 import reference
from edadm.kernels.int8.device import Device
from edadm.kernels.int8.norms import launch
from edadm.kernels.int8.norms.group_norm import int8_normalised, triton_normalised
from edadm.kernels.int8.norms.launch import PROGRAMS, GroupNorm, choose_group_norm, groups_of_program

from .test_convolution import DEVICE, numbers

FAR = 0.002  # share of numbers that may be their neighbours, where a value lies between two numbers
# images, height, width, channels, groups, rows of weight and bias
SHAPES = [
    (2, 8, 8, 128, 32, 1),
    (3, 5, 7, 60, 5, 3),
    (1, 4, 4, 320, 2, 1),
    (2, 16, 16, 96, 32, 2),
    (140, 2, 2, 64, 32, 1),
]


def arguments(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple:
    images, height, width, channels, groups, rows = shape
    x = (numbers(images, height, width, channels, seed=0) * 3).to(DEVICE, dtype)
    added = numbers(images, channels, seed=1).to(DEVICE, dtype)
    weight, bias = 1 + 0.3 * numbers(rows, channels, seed=2), 0.5 * numbers(rows, channels, seed=3)
    grids = torch.tensor([[0.012, -23.0, 232.0, -105.0]], device=DEVICE)
    return x, None, added, weight.to(DEVICE, dtype), bias.to(DEVICE, dtype), groups, 1e-5, True, grids


def assert_near_meaning(given: tuple) -> Tensor:
    expected = reference.normalised(*given)[0].int()
    difference = (triton_normalised(*given)[0].int() - expected).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < FAR
    return expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_numbers_are_those_of_the_meaning_or_where_rounding_ties_their_neighbours(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    assert len(assert_near_meaning(arguments(shape, dtype)).unique()) > 100


def test_with_nothing_added_and_no_activation() -> None:
    x, skip, _, *rest = arguments(SHAPES[1])
    expected = assert_near_meaning((x, skip, None, *rest[:4], False, *rest[5:]))
    assert (expected == -128).any()  # what SiLU never reaches


def test_a_mean_far_from_zero_costs_no_digits() -> None:
    x, _, added, weight, bias, groups, eps, _, grids = arguments(SHAPES[0])
    x = x + 1000.0
    exact = F.group_norm(
        (x.double() + added.double()[:, None, None]).permute(0, 3, 1, 2),
        groups,
        weight[0].double(),
        bias[0].double(),
        eps,
    )
    expected = reference.quantize(F.silu(exact).permute(0, 2, 3, 1), grids[0, 0], -23.0, 232.0, -105).int()
    difference = (
        triton_normalised(x, None, added, weight, bias, groups, eps, True, grids)[0].int() - expected
    ).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 5 * FAR


def test_numbers_on_several_grids() -> None:
    *given, grids = arguments(SHAPES[1])
    several = torch.cat(
        [grids, torch.tensor([[0.2, -7.0, 8.0, -121.0], [0.01, 0.0, 255.0, -128.0]], device=DEVICE)]
    )
    found, *_ = triton_normalised(*given, several)
    assert [len(one.unique()) > 9 for one in found] == [True, True, True]
    for index, one in enumerate(found):
        assert torch.equal(one, triton_normalised(*given, several[index : index + 1])[0][0])
    assert_near_meaning((*given, several))


@pytest.mark.parametrize("before", [1, 64, 94])
def test_channels_that_stand_elsewhere_and_groups_of_both(before: int) -> None:
    x, _, *rest = arguments(SHAPES[3], torch.bfloat16)
    parts = x[..., :before].contiguous(), x[..., before:].contiguous()
    assert torch.equal(assert_near_meaning((*parts, *rest)), reference.normalised(x, None, *rest)[0].int())
    assert torch.equal(
        triton_normalised(*parts, *rest, may_reside=False)[0],
        triton_normalised(x, None, *rest, may_reside=False)[0],
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES[1:4])
@pytest.mark.parametrize("before", [None, 8, 33])
def test_numbers_of_what_a_shortcut_reads(
    before: int | None, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x, _, *rest = arguments(shape, dtype)
    parts = (x, None) if before is None else (x[..., :before].contiguous(), x[..., before:].contiguous())
    shortcut_grids = torch.tensor(
        [[0.03, -100.0, 155.0, -28.0], [0.07, -50.0, 205.0, -78.0]][: 1 if before is None else 2],
        device=DEVICE,
    )
    found, expected = (
        triton_normalised(*parts, *rest, shortcut_grids),
        reference.normalised(*parts, *rest, shortcut_grids),
    )
    assert [tuple(one.shape) for one in found[1:]] == [(0,) if part is None else part.shape for part in parts]
    far = FAR if dtype == torch.float32 else 5 * FAR  # values of 8 bits lie between two numbers more often
    for one, other in zip(found, expected, strict=True):
        assert (one.int() - other.int()).abs().sum() == (one != other).sum()  # neighbours, where they differ
        assert (one != other).float().sum() <= far * one.numel()
    assert len(found[1].unique()) > 50


@pytest.mark.parametrize("may_reside", [False] if DEVICE == "cpu" else [False, True])
@pytest.mark.parametrize("before", [64, 24])
def test_smoothing_divides_behind_silu_and_what_a_shortcut_reads(before: int, may_reside: bool) -> None:
    x, _, *rest, grids = arguments((2, 8, 8, 64, 2, 1), torch.bfloat16)
    sizes = before, x.shape[-1] - before
    parts = (x, None) if sizes[1] == 0 else tuple(part.contiguous() for part in x.split(sizes, -1))
    others = torch.tensor([[0.03, -100.0, 155.0, -28.0], [0.07, -50.0, 205.0, -78.0]], device=DEVICE)
    exponents = torch.arange(2 * x.shape[-1], device=DEVICE) * 5 % 7 - 3
    factors = tuple((2.0**exponents).chunk(2))
    given = *parts, *rest, grids, others
    found = triton_normalised(*given, *factors, may_reside)
    for one, other in zip(found, reference.normalised(*given, *factors), strict=True):
        assert (one.int() - other.int()).abs().sum() == (one != other).sum()  # neighbours, where they differ
        assert (one != other).float().sum() <= 5 * FAR * one.numel()
    for exponent in (-3, 0, 2):  # a value over a power of two lies on a grid that is as many times as wide
        wider = torch.tensor([2.0**exponent, 1, 1, 1], device=DEVICE)
        plain = triton_normalised(*parts, *rest, grids * wider, others * wider, may_reside=may_reside)
        of_norm, of_shortcut = (factor == 2.0**exponent for factor in factors)
        assert of_norm.any()
        for one, other, of in zip(found, plain, (of_norm, *of_shortcut.split(sizes)), strict=True):
            assert torch.equal(one[..., of], other[..., of])


@pytest.mark.parametrize("width", [16, 32, 128])
def test_any_number_of_groups_in_a_program_gives_the_same(
    width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arguments(SHAPES[0])
    monkeypatch.setattr(launch, "WIDTHS", (width,))
    assert groups_of_program(2, 32, 4)[1] == width
    assert_near_meaning(given)


def test_programs_begin_at_16_bytes_and_are_many() -> None:
    assert groups_of_program(500, 32, 4) == (16, 64)
    # not 5, which are 60 channels, nor 4, whose numbers begin at 16 bytes
    assert groups_of_program(500, 32, 12) == (16, 256)
    # 3 times 16 programs are enough, since images are parted
    assert groups_of_program(16, 32, 10) == (12, 128)
    assert groups_of_program(1, 32, 4)[1] == 16  # more and smaller ones for one image
    assert groups_of_program(8, 2, 160) == (1, 256)
    assert groups_of_program(8, 3, 5)[0] in (1, 2, 3)  # no number of these groups is aligned
    assert groups_of_program(500, 32, 12, 32) == (2, 32)


def test_images_are_parted_until_there_are_programs_for_all_processors() -> None:
    def parted(images: int, pixels: int, channels: int) -> tuple[tuple[int, ...], int, int]:
        problem = GroupNorm(images, pixels, channels, channels // 4, channels)
        one = choose_group_norm(problem, Device(), may_reside=False)
        return one.grid, one.pixels, one.steps

    assert parted(PROGRAMS, 1024, 64) == ((PROGRAMS, 1), 32, 32)
    assert parted(PROGRAMS // 4, 4096, 64) == ((PROGRAMS // 4, 4), 32, 32)
    assert parted(33, 256, 64) == ((33, 8), 32, 1)  # no more than can be read at once
    (_, programs), pixels, steps = parted(PROGRAMS // 3, 1000, 64)
    assert programs * steps * pixels >= 1000 > (programs - 1) * steps * pixels


def test_the_meaning_is_torch_s_normalisation_and_the_grid() -> None:
    x, _, added, weight, bias, groups, eps, _, grids = arguments(SHAPES[0])
    layer = torch.nn.GroupNorm(groups, x.shape[3], eps).to(DEVICE)
    with torch.no_grad():
        layer.weight.copy_(weight[0])
        layer.bias.copy_(bias[0])
        last = F.silu(layer((x + added[:, None, None]).permute(0, 3, 1, 2))).permute(0, 2, 3, 1)
    expected = reference.quantize(last, grids[0, 0], -23.0, 232.0, -105).int()
    difference = (
        reference.normalised(x, None, added, weight, bias, groups, eps, True, grids)[0].int() - expected
    ).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < FAR


@pytest.mark.parametrize("has_shortcut", [False, True])
def test_the_operation_is_registered_as_it_behaves(has_shortcut: bool) -> None:
    given = arguments(SHAPES[1])
    shortcut_grids = given[-1].clone() if has_shortcut else None
    smooth = torch.full((60,), 4.0, device=DEVICE) if has_shortcut else None
    given = *given, shortcut_grids, smooth, None
    torch.library.opcheck(int8_normalised, given)
    for one, other in zip(int8_normalised(*given), triton_normalised(*given), strict=True):
        assert one.shape == other.shape
        assert (one != other).float().sum() <= FAR * one.numel()
