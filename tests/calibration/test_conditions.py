"""The condition of calibration rows."""

from __future__ import annotations

import numpy as np
import pytest

from edadm.calibration.conditions import with_conditions

CONTEXT = np.arange(10 * 2 * 3, dtype=np.float32).reshape(10, 2, 3)
NOTHING = -np.ones((2, 3), dtype=np.float32)
CHOSEN = {"latents": np.arange(4.0)[:, None, None, None], "timesteps": np.arange(4), "steps": np.arange(4)}
HELD_OUT = {f"held_out_{name}": array[:3] + 100 for name, array in CHOSEN.items()}


def groups(guided: bool) -> list[dict[str, np.ndarray]]:
    """Two shards of 5 trajectories."""
    shards = [{"context": CONTEXT[:5]}, {"context": CONTEXT[5:]}]
    return [shard | ({"unconditional": NOTHING} if guided else {}) for shard in shards]


def test_all_that_a_network_is_told_goes_with_its_states() -> None:
    pooled, sizes = np.arange(20.0).reshape(10, 2), np.arange(10)[:, None]
    told = [
        group | {"pooled": pooled[at], "time_ids": sizes[at], "unconditional_time_ids": np.array([-3])}
        for group, at in zip(groups(True), (slice(5), slice(5, 10)), strict=True)
    ]
    told = [group | {"unconditional_pooled": np.zeros(2)} for group in told]
    rows = with_conditions(CHOSEN | HELD_OUT, told)
    np.testing.assert_array_equal(rows["pooled"][1::2], pooled[:4])
    np.testing.assert_array_equal(rows["pooled"][0::2], np.zeros((4, 2)))
    np.testing.assert_array_equal(rows["held_out_time_ids"][:, 0], [-3, 4, -3, 5, -3, 6])
    own = {name: len(array) for name, array in rows.items() if not name.startswith("held_out_")}
    assert own == dict.fromkeys((*CHOSEN, "context", "pooled", "time_ids"), 8)


def test_without_a_condition_nothing_changes() -> None:
    rows = with_conditions(CHOSEN, [{"latents": CONTEXT}])
    assert rows.keys() == CHOSEN.keys()


def test_every_row_gets_the_context_of_its_trajectory_over_shards() -> None:
    rows = with_conditions(CHOSEN | HELD_OUT, groups(False))
    np.testing.assert_array_equal(rows["context"], CONTEXT[:4])
    np.testing.assert_array_equal(rows["held_out_context"], CONTEXT[4:7])
    np.testing.assert_array_equal(rows["latents"], CHOSEN["latents"])


@pytest.mark.parametrize("prefix", ["", "held_out_"])
def test_with_guidance_every_state_becomes_two_neighbouring_rows(prefix: str) -> None:
    rows = with_conditions(CHOSEN | HELD_OUT, groups(True))
    own, expected = (CHOSEN, CONTEXT[:4]) if not prefix else (HELD_OUT, CONTEXT[4:7])
    np.testing.assert_array_equal(rows[f"{prefix}context"][1::2], expected)
    np.testing.assert_array_equal(rows[f"{prefix}context"][0::2], np.broadcast_to(NOTHING, expected.shape))
    for name, array in own.items():
        np.testing.assert_array_equal(rows[name][0::2], array)
        np.testing.assert_array_equal(rows[name][1::2], array)
