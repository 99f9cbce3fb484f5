"""What real images score."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edadm.metrics.scores.floor import floor
from edadm.metrics.scores.frechet import frechet_distance, statistics


def real(count: int, seed: int = 0) -> torch.Tensor:
    rows = torch.randn((count, 6), generator=torch.Generator().manual_seed(seed))
    return rows @ torch.tril(torch.ones(6, 6)) + 1


@pytest.mark.parametrize("images", [40, 5])
def test_draws_score_as_sets_of_a_gaussian_do(images: int) -> None:
    reference = statistics(real(5000))
    found = floor(reference, images, None, 5000)
    sets = [frechet_distance(statistics(real(images, seed)), reference) for seed in range(1, 101)]
    assert found.mean == pytest.approx(np.mean(sets), rel=0.25)
    assert found.spread == pytest.approx(np.std(sets), rel=0.5)
    assert not found.held_out
    assert found == floor(reference, images, None, 5000)


def test_images_are_held_out_from_the_set_that_they_are_compared_with() -> None:
    rows = real(300).double()
    reference = statistics(rows)
    found = floor(reference, 300 - 250, rows[:50], 300)
    assert found.held_out
    assert found.spread is None
    expected = frechet_distance(statistics(rows[:50]), statistics(rows[50:]))
    assert found.mean == pytest.approx(expected, rel=1e-6)
    assert floor(reference, 20, rows[:60], 300).spread is not None


def test_too_few_known_images_are_replaced_by_draws() -> None:
    rows = real(300)
    assert not floor(statistics(rows), 80, rows[:50], 300).held_out
    assert not floor(statistics(rows), 40, rows[:50], None).held_out
