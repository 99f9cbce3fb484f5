"""Density, variety and their balance (acceptance check 4)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edadm.calibration.base import StepStatistics
from edadm.calibration.tdac import density, normalised, tdac, variety
from edadm.config.load import load_config
from edadm.config.schema import Calibration

from .points import statistics


@given(
    st.integers(0, 2**31), st.integers(1, 40), st.integers(1, 200), st.floats(0, 100), st.floats(1e-3, 100)
)
def test_any_scores_give_exactly_as_many_samples_as_asked(
    seed: int, steps: int, size: int, lambda_: float, radius: float
) -> None:
    counts = tdac(
        statistics(seed, steps),
        Calibration.model_validate({"size": size, "lambda": lambda_, "radius": radius}),
    ).counts
    assert counts.sum() == size
    assert counts.min() >= 0
    assert len(counts) == steps


@pytest.mark.parametrize(
    ("distance", "dissimilarity"),
    [(1.0, None), (None, 1.0), (1.0, 1.0)],
    ids=["constant density", "constant variety", "both constant"],
)
def test_constant_scores_do_not_divide_by_zero(distance: float | None, dissimilarity: float | None) -> None:
    random = statistics(0)
    constant = np.ones((12, 12)) - np.eye(12)
    given_statistics = StepStatistics(
        constant if distance else random.distance, constant if dissimilarity else random.dissimilarity
    )
    allocation = tdac(given_statistics, Calibration(size=50, radius=2.0))
    assert allocation.counts.sum() == 50
    if distance and dissimilarity:
        assert np.ptp(allocation.counts) <= 1
    assert all(np.isfinite(curve).all() for curve in allocation.curves.values())


def test_density_counts_other_steps_within_the_radius_inclusively() -> None:
    distance = np.array([[0, 1, 3], [1, 0, 2], [3, 2, 0]], dtype=float)
    assert density(distance, 0.5).tolist() == [0, 0, 0]
    assert density(distance, 1.0).tolist() == [1, 1, 0]
    assert density(distance, 2.0).tolist() == [1, 2, 1]
    assert density(distance, 3.0).tolist() == [2, 2, 2]


def test_variety_sums_the_dissimilarity_to_all_other_steps() -> None:
    dissimilarity = np.array([[9, 1, 3], [1, 9, 2], [3, 2, 9]], dtype=float)
    assert variety(dissimilarity).tolist() == [4, 3, 5]


def test_normalised_scores_span_zero_to_one_or_vanish() -> None:
    assert normalised(np.array([2.0, 4.0, 3.0])).tolist() == [0, 1, 0.5]
    assert normalised(np.full(3, 7.0)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("lambda_", [0.0, 0.7, 1.2, 100.0])
def test_the_weight_is_density_plus_lambda_times_variety(lambda_: float) -> None:
    random = statistics(3)
    settings = Calibration.model_validate({"size": 1000, "lambda": lambda_, "radius": 4.0})
    allocation = tdac(random, settings)
    expected = normalised(density(random.distance, 4.0)) + lambda_ * normalised(variety(random.dissimilarity))
    np.testing.assert_allclose(allocation.curves["weight"], expected)
    np.testing.assert_allclose(allocation.counts, 1000 * expected / expected.sum(), atol=2 + len(expected))


def test_lambda_moves_samples_from_dense_steps_to_varied_ones() -> None:
    random = statistics(4)

    def counts(lambda_: float) -> np.ndarray:
        return tdac(
            random, Calibration.model_validate({"size": 500, "lambda": lambda_, "radius": 4.0})
        ).counts

    varied = int(normalised(variety(random.dissimilarity)).argmax())
    assert counts(0.0)[varied] < counts(1.0)[varied] < counts(50.0)[varied]
    assert counts(50.0).argmax() == varied


def test_a_radius_beyond_all_distances_leaves_variety_alone() -> None:
    random = statistics(5)
    far = tdac(random, Calibration(size=500, radius=1e6))
    near = tdac(random, Calibration(size=500, radius=1e-9))
    assert far.curves["density"].tolist() == near.curves["density"].tolist() == [0] * 12
    assert far.counts.tolist() == near.counts.tolist()
    assert far.counts.tolist() != tdac(random, Calibration(size=500, radius=4.0)).counts.tolist()


@pytest.mark.parametrize(
    ("preset", "alone", "other"),
    [("tdac_density", "density", "variety"), ("tdac_variety", "variety", "density")],
)
def test_the_presets_of_the_ablation_weigh_one_score_alone(preset: str, alone: str, other: str) -> None:
    curves = tdac(statistics(6), load_config().calibrations[preset].model_copy(update={"radius": 4.0})).curves
    assert curves[other].any()
    np.testing.assert_array_equal(curves["weight"], curves[alone])


def test_both_weights_off_leave_equally_many() -> None:
    settings = Calibration.model_validate({"size": 36, "lambda": 0.0, "density_weight": 0.0, "radius": 4.0})
    assert tdac(statistics(6), settings).counts.tolist() == [3] * 12
