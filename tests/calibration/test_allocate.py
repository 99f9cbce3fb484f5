"""From shares to whole numbers (acceptance check 4)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edadm.calibration.allocate import apportion, assign_steps, held_out_counts, keyed_generator

weights = st.lists(st.floats(0, 1e3), min_size=1, max_size=60).filter(lambda w: sum(w) > 1e-6)


@given(weights, st.integers(0, 300))
def test_counts_sum_to_the_total_and_none_is_negative(weight: list[float], total: int) -> None:
    shares = np.asarray(weight) / sum(weight)
    counts = apportion(shares, total)
    assert counts.sum() == total
    assert counts.min() >= 0
    assert counts.dtype.kind == "i"


@given(weights, st.integers(1, 300))
def test_steps_with_a_larger_share_never_get_fewer_than_rounding_takes_away(
    weight: list[float], total: int
) -> None:
    shares = np.asarray(weight) / sum(weight)
    counts = apportion(shares, total)
    rounded = np.round(shares * total)
    moved = np.abs(counts - rounded).sum()
    assert moved == abs(total - rounded.sum()), "corrections go in one direction only"


@pytest.mark.parametrize(
    ("shares", "total", "counts"),
    [
        ([0.25, 0.5, 0.25], 4, [1, 2, 1]),
        ([0.5, 0.5], 1, [1, 0]),  # halves round to even: one sample is missing, the earlier step gets it
        ([0.5, 0.5], 3, [2, 1]),  # 1.5 rounds to 2: the cleanest step gives one back
        (
            [0.25, 0.25, 0.25, 0.25, 0.0],
            6,
            [2, 2, 1, 1, 0],
        ),  # a step that has none is never charged (quirk Q9)
        ([0.1] * 10, 4, [1, 1, 1, 1, 0, 0, 0, 0, 0, 0]),  # more steps than samples
        ([0.4, 0.3, 0.3], 1, [1, 0, 0]),
        ([1.0], 5, [5]),
    ],
)
def test_missing_go_to_the_most_and_surplus_comes_from_the_cleanest(
    shares: list[float], total: int, counts: list[int]
) -> None:
    assert apportion(np.asarray(shares), total).tolist() == counts


@given(st.lists(st.integers(0, 6), min_size=1, max_size=20), st.integers(0, 99))
def test_every_counted_step_is_assigned_that_often(counts: list[int], seed: int) -> None:
    steps = assign_steps(np.asarray(counts), seed)
    assert np.bincount(steps, minlength=len(counts)).tolist() == counts


def test_the_assignment_is_shuffled_by_its_seed() -> None:
    counts = np.full(10, 10)
    first, again, other = assign_steps(counts, 0), assign_steps(counts, 0), assign_steps(counts, 1)
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()
    assert first.tolist() != sorted(first.tolist())


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60).filter(any), st.integers(0, 200))
def test_held_out_rows_follow_the_allocation_to_within_one_sample_a_step(
    counts: list[int], total: int
) -> None:
    found = held_out_counts(np.asarray(counts), total)
    assert found.sum() == total
    assert len(found) == len(counts)
    np.testing.assert_array_less(np.abs(found - total * np.asarray(counts) / sum(counts)), 1 + 1e-9)
    assert not found[np.asarray(counts) == 0].any()


def test_few_held_out_rows_of_many_steps_come_from_the_whole_trajectory() -> None:
    assert np.flatnonzero(held_out_counts(np.full(100, 10), 4)).tolist() == [12, 37, 62, 87]
    assert held_out_counts(np.array([3, 0, 5]), 8).tolist() == [3, 0, 5]


def test_streams_are_known_by_their_key() -> None:
    draws = [keyed_generator(*key).random() for key in ((1, "a"), (1, "a"), (1, "b"), (2, "a"))]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 3
