"""Seconds from counts and rates."""

from __future__ import annotations

import dataclasses

import pytest

from edadm.planning.estimate import seconds, step_seconds
from edadm.stages.cost.work import Learning

from .fakes import learning, rates, reconstruct, stages, unit


def test_stages_take_what_the_probe_says() -> None:
    found = {stage.name: seconds(stage, rates()) for stage in stages()}
    assert found["collect-trajectories"] == pytest.approx(24 * 0.5 + 100 / 10)
    assert found["select-calibration"] == pytest.approx((30 + 10) / 10)
    assert found["set-ranges"] == pytest.approx(6 * 2.0 + 2000 * 0.001)
    assert found["generate"] == pytest.approx(8 * 0.5 + 2 * 3.0 + 2e6 / 10)
    assert found["evaluate"] is None


def test_learning_takes_its_steps_a_median_beside_each_unit_and_its_passes() -> None:
    steps = 3 * (1.0 + 2.0 + 4.0) + 5 * 10.0
    assert seconds(reconstruct(), rates()) == pytest.approx(steps + 4 * 2.0 + 2 * 8 * 0.25 + 50 / 10)


@pytest.mark.parametrize(("flops", "expected"), [(10, 1.0), (25, 2.5), (40, 4.0)])
def test_steps_lie_between_the_cheapest_and_the_costliest_unit_of_their_kind(
    flops: int, expected: float
) -> None:
    assert step_seconds(Learning(unit("x"), flops, 1, 4), rates().units["fbr", "tf32", 4]) == pytest.approx(
        expected
    )


def test_a_kind_with_one_measured_cost_has_that() -> None:
    assert step_seconds(learning()[-1], rates().units["fbr", "tf32", 4]) == 10.0


def test_without_a_disk_nothing_is_written_and_with_a_scorer_images_are_scored() -> None:
    without = dataclasses.replace(rates(), written=None, scored=0.25)
    found = {stage.name: seconds(stage, without) for stage in stages()}
    assert found["collect-trajectories"] == pytest.approx(12.0)
    assert found["evaluate"] == pytest.approx(0.5)
