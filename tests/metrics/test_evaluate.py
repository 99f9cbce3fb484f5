"""All scores together."""

from __future__ import annotations

from pathlib import Path

import pytest

from edadm.config.sources import locate
from edadm.errors import EdadmError
from edadm.metrics.evaluate import evaluate, extract_features
from edadm.metrics.features import NAME
from edadm.metrics.frechet import frechet_distance, load_statistics, save_statistics, statistics
from edadm.metrics.psnr import psnr

from .images import random_images


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Statistics of other images of the same kind."""
    path = tmp_path_factory.mktemp("metrics") / "reference.h5"
    layers = extract_features(random_images(150, 1), NAME)
    facts = {"extractor": NAME, "images": 150, "set": "noise"}
    save_statistics(path, {layer: statistics(layers[layer]) for layer in ("pooled", "spatial")}, facts)
    return path


def test_scores_come_with_their_conditions(reference: Path) -> None:
    images, others = random_images(40), random_images(40, 2)
    scores = evaluate(images, others, NAME, reference)
    layers, (expected, facts) = extract_features(images, NAME), load_statistics(reference)
    assert scores["fid"] == pytest.approx(frechet_distance(statistics(layers["pooled"]), expected["pooled"]), rel=1e-4)
    assert scores["sfid"] == pytest.approx(frechet_distance(statistics(layers["spatial"]), expected["spatial"]), rel=1e-4)
    assert scores["psnr"] == pytest.approx(psnr(images, others).mean().item())
    assert 1 <= scores["inception_score"] <= 10
    conditions = scores["conditions"]
    assert conditions["images"] == 40
    assert conditions["extractor"] == NAME
    assert conditions["reference_set"] == "noise"
    assert conditions["reference_images"] == 150
    assert conditions["reference_sha256"] == facts["sha256"]
    assert conditions["inception_score_splits"] == 1


def test_images_of_another_kind_lie_farther_from_the_reference(reference: Path) -> None:
    near = evaluate(random_images(40), None, NAME, reference)
    far = evaluate(255 - random_images(40) // 4, None, NAME, reference)
    assert near["psnr"] is None
    assert far["fid"] > 2 * near["fid"]


def test_statistics_of_another_extractor_are_refused(reference: Path, tmp_path: Path) -> None:
    layers, facts = load_statistics(reference)
    save_statistics(tmp_path / "inception.h5", layers, facts | {"extractor": "inception-v3-compat"})
    with pytest.raises(EdadmError, match="holds features of 'inception-v3-compat', the images are scored by 'cifar10_classifier'"):
        evaluate(random_images(4), None, NAME, tmp_path / "inception.h5")


def test_the_bundled_statistics_are_of_the_bundled_extractor() -> None:
    layers, facts = load_statistics(locate("bundled:cifar10_train_statistics", ".h5"))
    assert facts["extractor"] == NAME
    assert {layer: values["mu"].shape for layer, values in layers.items()} == {"pooled": (128,), "spatial": (128,)}
