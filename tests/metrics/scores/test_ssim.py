"""SSIM, beside its formula with scipy's windows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from edadm.metrics.scores.ssim import ssim
from tests.metrics.drawn import random_images


def by_hand(x: np.ndarray, y: np.ndarray) -> float:
    def averaged(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, 1.5, truncate=3.5)[5:-5, 5:-5]

    one, other = averaged(x), averaged(y)
    spread = averaged(x * x) - one**2, averaged(y * y) - other**2
    shared = averaged(x * y) - one * other
    c1, c2 = 6.5025, 58.5225
    top = (2 * one * other + c1) * (2 * shared + c2)
    return (top / ((one**2 + other**2 + c1) * (spread[0] + spread[1] + c2))).mean()


def test_values_are_those_of_the_formula() -> None:
    images = random_images(3)
    others = images.float() * 0.9 + 10 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    others = others.clamp(0, 255).byte()
    expected = [
        np.mean([by_hand(x.double().numpy(), y.double().numpy()) for x, y in zip(one, other, strict=True)])
        for one, other in zip(images, others, strict=True)
    ]
    assert ssim(images, others).tolist() == pytest.approx(expected, rel=1e-4)
    assert ssim(images, images).tolist() == pytest.approx([1.0] * 3)
    assert ssim(images, others).tolist() == pytest.approx(ssim(others, images).tolist(), rel=1e-5)
