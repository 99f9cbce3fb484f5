"""Images beside others of the same noise."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edadm.errors import EdadmError
from edadm.metrics.scores.paired import Parity, of_pairs, parity, parity_rows
from edadm.metrics.scores.psnr import psnr


def drawn(seed: int, count: int = 7) -> Tensor:
    return torch.randint(
        60, 190, (count, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def image_parity(images: Tensor, simulated: Tensor, full: Tensor) -> Parity:
    found = parity(parity_rows(images, simulated, full), full[0].numel())
    assert found is not None
    return found


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edadm.metrics.scores.paired.BATCH", 3)
    monkeypatch.setattr("edadm.metrics.scores.paired.PIXELS", 32)


def test_measures_see_a_few_images_at_once() -> None:
    seen = []
    found = of_pairs(drawn(0), drawn(1), lambda one, other: seen.append(len(one)) or psnr(one, other))
    assert torch.equal(found, psnr(drawn(0), drawn(1)))
    assert seen == [2, 2, 2, 1]
    with pytest.raises(EdadmError, match="7 images cannot be compared with 6"):
        parity_rows(drawn(0), drawn(1, 6), drawn(1))


def test_integers_may_be_as_far_from_simulation_as_simulation_from_full_precision() -> None:
    full = drawn(0)
    simulated = full + 8
    near, far = simulated - 2, simulated + 9
    near[3] -= 14  # one image beyond the bound, which is on the mean
    found = image_parity(near, simulated, full)
    assert (found.difference, found.bound, found.worst) == pytest.approx((4, 8, 2))
    assert found.psnr == pytest.approx(psnr(near, simulated).mean().item())
    assert found.holds
    assert not image_parity(far, simulated, full).holds
    assert image_parity(full + 16, simulated, full).holds


def test_one_image_that_is_full_precisions_gives_a_number_all_the_same() -> None:
    full = drawn(0)
    simulated = full + 8
    simulated[0] = full[0]
    found = image_parity(simulated + 2, simulated, full)
    assert found.worst == pytest.approx(
        2 * full[0].numel()
    )  # 2 levels in each value, where one level in one would be allowed
    assert found.holds


def test_equal_images_hold_any_bound() -> None:
    found = image_parity(drawn(0), drawn(0), drawn(0))
    assert (found.difference, found.bound, found.worst) == (0, 0, 0)
    assert found.holds
