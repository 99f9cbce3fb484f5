"""Peak signal-to-noise ratio."""

from __future__ import annotations

import math

import pytest
import torch

from edadm.metrics.scores.psnr import psnr


def test_the_ratio_is_that_of_the_textbook() -> None:
    a = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    b = a.clone()
    b[0] += 5
    b[1, 0, 0, 0] = 255
    expected = [10 * math.log10(255**2 / 25), 10 * math.log10(255**2 / (155**2 / 48))]
    assert psnr(a, b).tolist() == pytest.approx(expected, abs=1e-4)
    assert torch.equal(psnr(a, b), psnr(b, a))


def test_equal_images_count_as_apart_by_rounding() -> None:
    a = torch.randint(256, (1, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert psnr(a, a).item() == pytest.approx(58.92, abs=0.01)
