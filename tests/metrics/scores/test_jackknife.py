"""Pseudo-values of scores, beside leaving groups out by hand, and beside truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import stdtrit
from torch import Tensor
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric

from edadm.metrics.scores.frechet import frechet_distance, statistics
from edadm.metrics.scores.jackknife import (
    frechet_groups,
    groups_of,
    of_frechet_distance,
    of_inception_score,
    of_kernel_distance,
    of_mean,
    pseudo_values,
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def by_hand(groups: Tensor, score) -> Tensor:
    """Pseudo-values from a score of the images that are kept."""
    left_out = [groups == group for group in range(int(groups.max()) + 1)]
    without = torch.tensor([score(~gone) for gone in left_out], dtype=torch.float64)
    return pseudo_values(groups, score(torch.ones(len(groups), dtype=torch.bool)), without)


def error(values: Tensor) -> float:
    return values.std().item() / len(values) ** 0.5


def test_groups_are_as_large_as_each_other_and_the_same_each_time() -> None:
    groups = groups_of(1003)
    assert torch.equal(groups, groups_of(1003))
    assert set(torch.bincount(groups).tolist()) == {5, 6}
    assert len(torch.bincount(groups)) == 200
    assert groups[:50].tolist() != sorted(groups[:50].tolist())
    assert torch.bincount(groups_of(256)).tolist() == [1] * 256
    assert len(torch.bincount(frechet_groups(5000, 2048))) == 20
    assert len(torch.bincount(frechet_groups(5000, 128))) == 200


def test_a_mean_moves_as_statistics_say() -> None:
    values = drawn(300)
    assert error(of_mean(values, groups_of(300))) == pytest.approx(values.std().item() / 300**0.5, rel=1e-4)
    assert of_mean(values, groups_of(300, 50)).mean().item() == pytest.approx(values.mean().item(), abs=1e-6)


@pytest.mark.parametrize(("images", "features"), [(40, 6), (20, 30)])
def test_frechet_distances_without_a_group_are_those_of_the_rest(images: int, features: int) -> None:
    rows, real = drawn(images, features), statistics(0.5 + 1.5 * drawn(200, features, seed=1))
    groups = groups_of(images, 7)
    expected = by_hand(groups, lambda kept: frechet_distance(statistics(rows[kept]), real))
    found = of_frechet_distance(rows, real["mu"], real["sigma"], groups)
    assert found.numpy() == pytest.approx(expected.numpy(), rel=1e-5)


def test_inception_scores_without_a_group_are_those_of_the_rest() -> None:
    logits, groups = 3 * drawn(30, 5), groups_of(30, 6)

    def score(kept: Tensor) -> float:
        return isc_features_to_metric(logits[kept], splits=1)["inception_score_mean"]

    expected = by_hand(groups, score)
    assert of_inception_score(logits, groups).numpy() == pytest.approx(expected.numpy(), rel=1e-4)


def test_kernel_distances_without_a_group_are_those_of_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edadm.metrics.scores.jackknife.BLOCK", 16)
    rows, real, groups = drawn(40, 6), 0.3 + drawn(50, 6, seed=1), groups_of(40, 8)

    def kernel(one: Tensor, other: Tensor) -> Tensor:
        return (one.double() @ other.double().T / 6 + 1) ** 3

    def score(kept: Tensor) -> float:
        own, n, m = rows[kept], int(kept.sum()), len(real)
        pairs = (kernel(own, own).sum() - kernel(own, own).trace()) / (n * (n - 1))
        reals = (kernel(real, real).sum() - kernel(real, real).trace()) / (m * (m - 1))
        return (pairs + reals - 2 * kernel(own, real).mean()).item()

    found = of_kernel_distance(rows, real, groups)
    assert found.numpy() == pytest.approx(by_hand(groups, score).numpy(), abs=1e-4)
    same = kid_features_to_metric(rows, real[:40], kid_subset_size=40, verbose=False)
    ours = of_kernel_distance(rows, real[:40], groups_of(40)).mean().item()
    assert ours == pytest.approx(same["kernel_inception_distance_mean"], abs=1e-5)


def test_the_mean_of_pseudo_values_is_the_known_distance_of_two_gaussians() -> None:
    shift, scale, features = 0.2, 0.7, 16
    rows = shift + scale * drawn(4000, features).double()
    known = features * (shift**2 + (1 - scale) ** 2)
    plain = frechet_distance(statistics(rows), {"mu": np.zeros(features), "sigma": np.eye(features)})
    values = of_frechet_distance(rows, np.zeros(features), np.eye(features), groups_of(4000))
    assert abs(values.mean().item() - known) < 3 * error(values)
    assert plain - values.mean().item() == pytest.approx(
        scale * (features + 1) * features / 4 / 4000, rel=0.3
    )


def test_intervals_hold_the_expected_score_about_as_often_as_they_say() -> None:
    """Of 100 sets of 200 images the intervals of FID, and of the difference to images a little other."""
    mu, sigma, held, paired = np.zeros(4), np.eye(4), [], []
    groups = groups_of(200, 25)
    sets = [1.3 * drawn(200, 4, seed=seed) + 0.4 for seed in range(100)]
    others = [rows + 0.1 * drawn(200, 4, seed=1000 + seed) + 0.05 for seed, rows in enumerate(sets)]
    ours, theirs = (
        [of_frechet_distance(rows, mu, sigma, groups) for rows in each] for each in (sets, others)
    )
    values, differences = torch.stack(ours), torch.stack(theirs) - torch.stack(ours)
    quantile = stdtrit(24, 0.975)
    for found, kept in ((values, held), (differences, paired)):
        centre = found.mean()
        kept += [abs(one.mean() - centre) <= quantile * error(one) for one in found]
    assert 88 <= sum(held) <= 100
    assert 88 <= sum(paired) <= 100
    assert error(differences[0]) < 0.4 * error(values[0])
