"""Features of single images beside statistics that are there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edadm.config.files.sources import locate
from edadm.config.inputs.statistics import HELD_OUT
from edadm.errors import EdadmError
from edadm.metrics.extractors.cifar import NAME
from edadm.metrics.extractors.extract import extract_features
from edadm.metrics.kept import write_kept
from edadm.metrics.references import load_reference, write_reference
from edadm.metrics.scores.floor import floor
from edadm.metrics.scores.frechet import frechet_distance, load_features, load_statistics, statistics
from tests.metrics.drawn import random_images

REAL, OTHERS = random_images(30), random_images(20, 1)


def test_statistics_keep_their_numbers_and_gain_features(tmp_path: Path) -> None:
    known, made = tmp_path / "known.h5", tmp_path / "made.h5"
    write_reference(known, REAL, NAME, None, {"set": "noise"})
    write_kept(made, known, REAL, OTHERS, NAME, None, 10)
    (before, facts), (after, facts_after) = load_statistics(known), load_statistics(made)
    for layer, arrays in before.items():
        for name, array in arrays.items():
            assert np.array_equal(array, after[layer][name])
    assert facts | {"sha256": None} == facts_after | {"sha256": None}
    found = load_reference(made)
    places = torch.linspace(0, 29, 10).round().long()
    pooled = extract_features(REAL[places], NAME)["pooled"]
    torch.testing.assert_close(found.features, pooled, rtol=1e-3, atol=1e-3)
    assert found.held_out is not None
    assert found.held_out.shape == (10, 128)
    with pytest.raises(EdadmError, match="is of 30 images by 'cifar10_classifier', here are 20 for"):
        write_kept(made, known, OTHERS, REAL, NAME, None, 10)


def test_a_floor_is_of_images_that_the_reference_is_not_of() -> None:
    rows, others = torch.randn(400, 6), torch.randn(50, 6)
    reference = statistics(rows)
    found = floor(reference, 50, rows[:50], 400, others)
    assert found.held_out
    assert found.mean == pytest.approx(frechet_distance(statistics(others), reference), rel=1e-6)
    assert not floor(reference, 51, None, 400, others).held_out


def test_the_bundled_reference_has_single_images_and_others() -> None:
    path = locate("bundled:cifar10_train_statistics", ".h5")
    kept, others = load_features(path), load_features(path, HELD_OUT)
    assert kept is not None
    assert others is not None
    assert kept.shape == others.shape == (10_000, 128)
    layers, _ = load_statistics(path)
    near = frechet_distance(statistics(kept), layers["pooled"])
    far = frechet_distance(statistics(others), layers["pooled"])
    assert 0 < near < far < 1
