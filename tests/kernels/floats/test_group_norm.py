"""Group normalisation in fp32, and the end of a residual block, against PyTorch; interpreted on a CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from edadm.kernels.floats.group_norm import triton_group_norm
from edadm.kernels.floats.launch import choose_group_norm
from edadm.kernels.floats.residual import triton_add_

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# images, channels, groups, then pixels: groups of 4, 1, 12 and 7 channels, odd numbers of channels, one group, rows of tokens
SHAPES = [
    (2, 64, 16, 8, 8),
    (1, 32, 32, 4, 4),
    (2, 60, 5, 4, 4),
    (2, 84, 12, 5, 3),
    (2, 15, 5, 7, 3),
    (1, 45, 3, 1, 1),
    (2, 300, 1, 6, 6),
    (2, 64, 8, 49),
    (1, 32, 8, 17, 31),
]


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def meaning(x: Tensor, groups: int, weight: Tensor, bias: Tensor, added: Tensor, silu: bool) -> Tensor:
    ones = [1] * (x.dim() - 2)
    y = F.group_norm(x.double() + added.double().reshape(*added.shape, *ones), groups, eps=1e-5)
    y = y * weight.double().reshape(*weight.shape, *ones) + bias.double().reshape(*bias.shape, *ones)
    return F.silu(y) if silu else y


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_it_is_that_of_torch_channels_last(shape: tuple[int, ...]) -> None:
    images, channels, groups, *pixels = shape
    x = numbers(images, channels, *pixels, seed=0) * 3 + 50  # channels first
    weight, bias = 1 + 0.3 * numbers(1, channels, seed=1), numbers(1, channels, seed=2)
    for silu, rows, layout in ((False, 0, x), (True, images, x.movedim(1, -1).contiguous().movedim(-1, 1))):
        own, shift = weight.repeat(max(rows, 1), 1), bias.repeat(max(rows, 1), 1)
        own[-1] += 0.1
        added = numbers(max(rows, 1), channels, seed=5) * (rows > 0)
        y = triton_group_norm(layout, groups, own, shift, 1e-5, silu, added if rows else None)
        assert y.movedim(1, -1).is_contiguous()
        expected = meaning(x, groups, own, shift, added, silu)
        torch.testing.assert_close(y.double(), expected, rtol=1e-4, atol=3e-5)


def test_a_mean_far_from_zero_costs_no_digits() -> None:
    x, ones = numbers(1, 32, 8, 8, seed=0) + 1000.0, torch.ones(1, 32, device=DEVICE)
    y = triton_group_norm(x, 8, ones, 0 * ones, 1e-5)
    torch.testing.assert_close(
        y.double(), meaning(x, 8, ones, 0 * ones, 0 * ones, False), rtol=1e-3, atol=3e-4
    )


def test_a_row_has_the_same_bits_in_every_batch() -> None:
    x, weight, bias = numbers(3, 48, 6, 6, seed=0), numbers(1, 48, seed=1), numbers(1, 48, seed=2)
    whole = triton_group_norm(x, 4, weight, bias, 1e-5, True)
    parts = [triton_group_norm(part, 4, weight, bias, 1e-5, True) for part in x.split([1, 2])]
    assert torch.equal(whole, torch.cat(parts))


@pytest.mark.parametrize(
    ("channels", "groups", "width", "own"),
    [
        (128, 32, 32, 8),
        (256, 32, 32, 4),
        (384, 32, 32, 2),
        (512, 32, 32, 2),
        (224, 32, 64, 8),
        (320, 1, 512, 1),
    ],
)
def test_programs_have_whole_sectors_and_few_idle_lanes(
    channels: int, groups: int, width: int, own: int
) -> None:
    launch = choose_group_norm(1024, channels, groups)
    assert (launch.width, launch.groups) == (width, own)
    assert launch.programs * own >= groups
    assert launch.pixels * width == 8192


@pytest.mark.parametrize("memory", [torch.channels_last, torch.contiguous_format])
def test_the_end_of_a_residual_block_adds_both_branches_and_a_bias(memory: torch.memory_format) -> None:
    x, other, bias = numbers(3, 12, 9, 11, seed=0), numbers(3, 12, 9, 11, seed=1), numbers(12, seed=2)
    expected = x + bias[:, None, None] + other
    y = triton_add_(x.contiguous(memory_format=memory), other.contiguous(memory_format=memory), bias)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, expected)
