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
    with pytest.raises(
        EdadmError,
        match="calibration size 12 exceeds the 11 recorded trajectories; lower `size` or record more",
    ):
        select(stores(6, 5), Calibration(size=12))


@pytest.mark.parametrize("selector", sorted(SELECTORS))
@pytest.mark.parametrize(("size", "held_out"), [(6, 5), (3, 2), (7, 4), (8, 1)])
def test_held_out_rows_come_from_the_trajectories_after_the_first(
    selector: str, size: int, held_out: int
) -> None:
    alone, _ = select(stores(6, 5), Calibration(selector=selector, size=size, radius=0.05))
    chosen, allocation = select(
        stores(6, 5), Calibration(selector=selector, size=size, held_out=held_out, radius=0.05)
    )
    values = chosen["held_out_latents"][:, 0, 0, 0]
    assert (values // 10).tolist() == list(range(size, size + held_out))
    assert (values % 10).tolist() == chosen["held_out_steps"].tolist()
    assert chosen["held_out_timesteps"].tolist() == TIMESTEPS[chosen["held_out_steps"]].tolist()
    assert set(chosen["held_out_steps"]) <= set(np.flatnonzero(allocation.counts))
    assert "held_out_latents" not in alone
    for name, array in alone.items():
        np.testing.assert_array_equal(chosen[name], array)


def test_too_many_held_out_rows_are_refused() -> None:
    sentence = (
        "calibration size 8 with 4 held-out rows exceeds the 11 recorded trajectories; lower `size` or "
        "`held_out` or record more"
    )
    with pytest.raises(EdadmError, match=sentence):
        select(stores(6, 5), Calibration(size=8, held_out=4))
