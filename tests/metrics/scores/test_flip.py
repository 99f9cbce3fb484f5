"""FLIP, beside what its authors' program says of the same images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from edadm.metrics.scores.flip import flip


def pair(height: int, width: int, seed: int, noise: int) -> tuple[Tensor, Tensor]:
    """Coloured squares of 4 pixels, and the same with noise."""
    cells = np.random.default_rng(seed).random((height // 4 + 2, width // 4 + 2, 3))
    image = (np.kron(cells, np.ones((4, 4, 1)))[:height, :width] * 255).astype(np.uint8)
    change = np.random.default_rng(seed + 50 if seed < 9 else 54).integers(-noise, noise + 1, image.shape)
    other = np.clip(image.astype(int) + change, 0, 255).astype(np.uint8)
    reference, test = (torch.from_numpy(each).permute(2, 0, 1)[None] for each in (image, other))
    return test, reference


@pytest.mark.parametrize(
    ("size", "seed", "noise", "expected"),  # flip-evaluator 1.7, `evaluate(reference, test, "LDR")`
    [
        ((32, 32), 0, 2, 0.0224445),
        ((32, 32), 1, 10, 0.0659060),
        ((32, 32), 2, 40, 0.1789560),
        ((32, 32), 3, 120, 0.3983684),
        ((64, 48), 9, 20, 0.1085472),
    ],
)
def test_errors_are_those_of_the_authors_program(
    size: tuple[int, int], seed: int, noise: int, expected: float
) -> None:
    assert flip(*pair(*size, seed, noise)).item() == pytest.approx(expected, rel=2e-5)


def test_each_image_has_an_error_of_its_own() -> None:
    one, other = pair(32, 32, 0, 2), pair(32, 32, 2, 40)
    both = flip(*(torch.cat(images) for images in zip(one, other, strict=True)))
    assert both.tolist() == pytest.approx([flip(*one).item(), flip(*other).item()], rel=1e-5)
    assert flip(one[0], one[0]).item() == pytest.approx(0, abs=1e-6)
    black, white = torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.full((1, 3, 16, 16), 255).byte()
    assert 0.9 < flip(black, white).item() <= 1
