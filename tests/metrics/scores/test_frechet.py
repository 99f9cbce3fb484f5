"""The Frechet distance and its statistics file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from edadm.errors import EdadmError
from edadm.metrics.scores.frechet import frechet_distance, load_statistics, save_statistics, statistics


def gaussian(mu: list[float], deviations: list[float]) -> dict[str, np.ndarray]:
    return {"mu": np.asarray(mu, dtype=float), "sigma": np.diag(np.square(deviations))}


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        (([0, 0], [1, 1]), ([0, 0], [1, 1]), 0),
        (([0, 0], [1, 1]), ([3, 4], [1, 1]), 25),
        (([0, 0], [1, 2]), ([0, 0], [3, 5]), 4 + 9),
        (([1, 0, 2], [1, 2, 3]), ([0, 1, 2], [2, 2, 1]), 1 + 1 + 1 + 0 + 4),
    ],
)
def test_diagonal_gaussians_have_the_closed_form(a: tuple, b: tuple, distance: float) -> None:
    """|mu_a - mu_b|^2 + sum of (sigma_a - sigma_b)^2."""
    assert frechet_distance(gaussian(*a), gaussian(*b)) == pytest.approx(distance, abs=1e-6)


def test_rotating_both_gaussians_changes_nothing() -> None:
    generator = np.random.default_rng(0)
    rotation = np.linalg.qr(generator.normal(size=(4, 4)))[0]
    a, b = gaussian([0, 1, 2, 3], [1, 2, 3, 4]), gaussian([1, 1, 0, 0], [4, 1, 1, 2])
    turned = [{"mu": rotation @ g["mu"], "sigma": rotation @ g["sigma"] @ rotation.T} for g in (a, b)]
    assert frechet_distance(*turned) == pytest.approx(frechet_distance(a, b), rel=1e-6)


def test_statistics_are_the_mean_and_the_covariance() -> None:
    features = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    found = statistics(features)
    np.testing.assert_allclose(found["mu"], features.double().mean(0).numpy())
    np.testing.assert_allclose(found["sigma"], np.cov(features.double().numpy(), rowvar=False))
    assert found["sigma"].dtype == np.float64


def test_a_statistics_file_gives_back_what_was_saved(tmp_path: Path) -> None:
    layers = {"pooled": gaussian([0, 1], [1, 2]), "spatial": gaussian([5], [6])}
    path = tmp_path / "statistics.h5"
    save_statistics(path, layers, {"extractor": "x", "images": 7, "set": "seven"})
    found, facts = load_statistics(path)
    assert found.keys() == layers.keys()
    for layer, values in layers.items():
        for name, array in values.items():
            assert np.array_equal(found[layer][name], array)
    assert facts == {
        "extractor": "x",
        "images": 7,
        "set": "seven",
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_statistics(
            tmp_path / name, {"pooled": gaussian([0, 1], [1, 2])}, {"images": 1, "extractor": "x"}
        )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("content", [b"", b"no hdf5", None])
def test_a_foreign_file_is_refused_with_the_command_that_makes_one(
    content: bytes | None, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / "statistics.h5").write_bytes(content)
    with pytest.raises(EdadmError, match="make them with `edadm reference-statistics`"):
        load_statistics(tmp_path / "statistics.h5")
