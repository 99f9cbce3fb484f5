"""The calibration set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edadm.calibration.select import SELECTORS, select, statistics_of
from edadm.config.schema import Calibration
from edadm.errors import EdadmError

TIMESTEPS = np.array([900, 500, 100, 0])


def stores(*runs: int) -> list[dict[str, Any]]:
    """Stores of consecutive shards; the value of a latent is 10 * trajectory + step."""
    generator, groups, first = np.random.default_rng(0), [], 0
    for count in runs:
        values = 10 * np.arange(first, first + count)[:, None] + np.arange(4)[None]
        distance = generator.random((2, 4, 4))
        group = {"latents": values[:, :, None, None, None].astype("float32"), "timesteps": TIMESTEPS}
        group |= {"distance": distance, "dissimilarity": distance[::-1], "feature_elements": np.array([6, 4])}
        groups.append(group)
        first += count
    return groups


@pytest.mark.parametrize("selector", sorted(SELECTORS))
@pytest.mark.parametrize("size", [1, 6, 11])
def test_every_trajectory_contributes_at_most_one_state_and_in_order(selector: str, size: int) -> None:
    chosen, allocation = select(stores(6, 5), Calibration(selector=selector, size=size, radius=0.05))
    values = chosen["latents"][:, 0, 0, 0]
    assert (values // 10).tolist() == list(range(size))
    assert (values % 10).tolist() == chosen["steps"].tolist()
    assert chosen["timesteps"].tolist() == TIMESTEPS[chosen["steps"]].tolist()
    assert np.bincount(chosen["steps"], minlength=4).tolist() == allocation.counts.tolist()


def test_sums_of_batches_and_shards_add_up_to_means() -> None:
    groups = stores(6, 5)
    found = statistics_of(groups)
    total = sum(group["distance"].sum(0) for group in groups)
    np.testing.assert_allclose(found.distance, total / 20)
    np.testing.assert_allclose(found.dissimilarity, sum(group["dissimilarity"].sum(0) for group in groups))
    assert found.steps == 4


def test_more_samples_than_trajectories_are_refused() -> None:
    with pytest.raises(EdadmError, match="calibration size 12 exceeds the 11 recorded trajectories; lower `size` or record more"):
        select(stores(6, 5), Calibration(size=12))
