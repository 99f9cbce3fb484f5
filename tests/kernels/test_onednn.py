"""Sums of integers are exact, by one convolution or, where the processor's instructions saturate, by two."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from edadm.kernels import onednn
from edadm.kernels.onednn import LARGEST_LOW, DividedConvolution, Geometry, PackedConvolution, exact_convolution

OLDER = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "PYTHONPATH": str(Path(onednn.__file__).parents[2])}
x86_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="instruction sets of x86")


def check_extremes(channels: int) -> None:
    """Compares with exact sums where codes and weights are as large as they can be."""
    weight = torch.full((20, channels, 3, 3), 127, dtype=torch.int8)
    weight[1::2] = -128
    codes = torch.full((2, channels, 6, 5), 255, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    codes[1] = 0
    scale = torch.where(torch.arange(20) % 3 == 0, -0.5, 0.25)
    for zero_point in (0, 7, 255):
        output = exact_convolution(weight, scale, 2.0, zero_point, Geometry(padding=(1, 1)))(codes)
        exact = F.conv2d(codes.double() - zero_point, weight.double(), padding=1) * 2 * scale.double().reshape(-1, 1, 1)
        assert (output - exact).abs().max() <= 2**-23 * exact.abs().max(), (channels, zero_point)


@pytest.mark.parametrize("channels", [1, 63, 64, 300])
def test_extreme_codes_do_not_overflow(channels: int) -> None:
    check_extremes(channels)


def test_two_convolutions_are_as_good_as_one_and_no_product_leaves_int16(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 2 * max(LARGEST_LOW, 255 - LARGEST_LOW) * 128 <= 2**15
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(-128, 128, (8, 20, 3, 3), generator=generator, dtype=torch.int8)
    codes = torch.randint(0, 256, (2, 20, 7, 6), generator=generator, dtype=torch.uint8).contiguous(memory_format=torch.channels_last)
    scale, bias, geometry = torch.rand(8, generator=generator) - 0.5, torch.randn(8, generator=generator), Geometry((2, 2), (1, 1))
    monkeypatch.setattr(onednn, "sums_are_exact", lambda: False)
    divided = exact_convolution(weight, scale, 0.5, 37, geometry)
    assert isinstance(divided, DividedConvolution)
    inputs, weights = (codes.double() - 37) * 0.5, weight.double() * scale.double().reshape(-1, 1, 1, 1)
    expected = F.conv2d(inputs, weights, bias.double(), stride=2, padding=1)
    torch.testing.assert_close(divided(codes, bias), expected.float(), rtol=1e-6, atol=1e-4)
    assert isinstance(exact_convolution(weight.clamp(-64, 64), scale, 0.5, 37), PackedConvolution)  # too small to overflow


@x86_only
def test_an_older_processor_is_found_out_and_computes_exactly() -> None:
    program = "from tests.kernels.test_onednn import check_extremes, onednn; check_extremes(64); print(onednn.sums_are_exact())"
    run = subprocess.run([sys.executable, "-c", program], env=OLDER, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "False"
