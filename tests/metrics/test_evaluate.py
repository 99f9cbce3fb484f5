"""All scores together."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric

from edadm.config.files.scoring import Scoring
from edadm.config.files.sources import file_sha256, locate
from edadm.config.schema import Evaluation
from edadm.errors import EdadmError
from edadm.metrics.circumstances import circumstances
from edadm.metrics.evaluate import evaluate
from edadm.metrics.extractors.cifar import NAME
from edadm.metrics.extractors.extract import extract_features
from edadm.metrics.scores.flip import flip
from edadm.metrics.scores.frechet import (
    frechet_distance,
    load_features,
    load_statistics,
    save_statistics,
    statistics,
)
from edadm.metrics.scores.psnr import psnr
from edadm.metrics.scores.ssim import ssim
from tests.metrics.drawn import random_images

ALL = Evaluation(scores=("fid", "sfid", "inception_score", "kid", "precision_recall"))


def files(reference: Path | None, **other: Any) -> Scoring:
    """The bundled extractor against some statistics."""
    return Scoring(**{"extractor": NAME, "weights": None, "reference": reference, "resolution": None} | other)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Statistics of other images of the same kind."""
    path = tmp_path_factory.mktemp("metrics") / "reference.h5"
    layers = extract_features(random_images(150, 1), NAME)
    facts = {"extractor": NAME, "images": 150, "set": "noise"}
    save_statistics(
        path,
        {layer: statistics(layers[layer]) for layer in ("pooled", "spatial")},
        facts,
        layers["pooled"].numpy(),
    )
    return path


def test_class_accuracy_counts_images_of_the_class_asked_for() -> None:
    images, settings = random_images(40), Evaluation(scores=("class_accuracy",))
    labels = extract_features(images, NAME)["logits"].argmax(1).tolist()
    for image in (3, 17, 31):
        labels[image] = (labels[image] + 1) % 10
    scores = evaluate(images, None, settings, files(None), labels=labels)
    assert scores["class_accuracy"] == pytest.approx(37 / 40)
    assert sorted(scores["resamples"]["class_accuracy"]) == [0.0] * 3 + [1.0] * 37
    with pytest.raises(EdadmError, match="needs the class of each of 40 images, and there are 39"):
        evaluate(images, None, settings, files(None), labels=labels[1:])


def test_scores_come_with_their_conditions(reference: Path) -> None:
    images, others = random_images(40), random_images(40, 2)
    scores = evaluate(images, others, ALL, files(reference))
    layers, (expected, facts) = extract_features(images, NAME), load_statistics(reference)
    assert scores["fid"] == pytest.approx(
        frechet_distance(statistics(layers["pooled"]), expected["pooled"]), rel=1e-4
    )
    assert scores["sfid"] == pytest.approx(
        frechet_distance(statistics(layers["spatial"]), expected["spatial"]), rel=1e-4
    )
    assert scores["psnr"] == pytest.approx(psnr(images, others).mean().item())
    assert 1 <= scores["inception_score"] <= 10
    conditions = scores["conditions"]
    assert conditions["images"] == 40
    assert conditions["extractor"] == NAME
    assert conditions["reference_set"] == "noise"
    assert conditions["reference_images"] == 150
    assert conditions["reference_sha256"] == facts["sha256"]
    assert conditions["inception_score_splits"] == 1
    assert conditions["extractor_sha256"] == file_sha256(locate("bundled:cifar10_classifier"))
    assert conditions["preparation"] == "none"
    assert conditions["reference_features"] == 150
    assert conditions["kid_subsets"] == "100 of 40"
    assert conditions["scored_at_once"] == 256
    assert conditions["scored_on"] == "cpu"
    assert re.fullmatch(r"torch 2\.\S+, pillow \d\S+, torch-fidelity \d\S+", conditions["versions"])
    assert abs(scores["kid"]) < 0.5
    kid = kid_features_to_metric(
        layers["pooled"], load_features(reference), kid_subset_size=40, verbose=False
    )
    assert scores["kid_spread"] == pytest.approx(kid["kernel_inception_distance_std"], rel=1e-3)
    assert "inception_score_spread" not in scores
    assert 0 <= scores["precision"] <= 1
    assert 0 <= scores["recall"] <= 1


def test_scores_come_with_what_is_chance(reference: Path) -> None:
    images, others = random_images(40), random_images(40, 2)
    scores = evaluate(images, others, ALL, files(reference))
    resamples = {name: np.array(values) for name, values in scores["resamples"].items()}
    assert {name: len(values) for name, values in resamples.items()} == dict.fromkeys(
        ("fid", "sfid", "inception_score", "kid", "psnr"), 40
    )
    assert np.sort(resamples["psnr"]) == pytest.approx(np.sort(psnr(images, others).numpy()))
    assert abs(resamples["kid"].mean() - scores["kid"]) < scores["kid_spread"]
    assert resamples["fid"].mean() < scores["fid"]
    assert scores["floor"]["fid"]["held_out"] is False
    assert "fid_infinity" not in scores
    assert scores["psnr_worst"] == pytest.approx(psnr(images, others).sort().values[:2].mean().item())
    error = (images.float() - others.float()).square().mean().item()
    assert scores["psnr_of_mean_error"] == pytest.approx(10 * np.log10(255**2 / error))
    again = evaluate(images, others, ALL, files(reference))
    assert again["resamples"] == scores["resamples"]


def test_images_of_another_kind_lie_farther_from_the_reference(reference: Path) -> None:
    near = evaluate(random_images(40), None, Evaluation(), files(reference))
    far = evaluate(255 - random_images(40) // 4, None, Evaluation(), files(reference))
    assert near["psnr"] is None
    assert far["fid"] > 2 * near["fid"]


def test_statistics_of_another_extractor_are_refused(reference: Path, tmp_path: Path) -> None:
    layers, facts = load_statistics(reference)
    save_statistics(tmp_path / "inception.h5", layers, facts | {"extractor": "inception-v3-compat"})
    with pytest.raises(
        EdadmError,
        match="holds features of 'inception-v3-compat', the images are scored by 'cifar10_classifier'",
    ):
        evaluate(random_images(4), None, Evaluation(), files(tmp_path / "inception.h5"))


def test_the_bundled_statistics_are_of_the_bundled_extractor() -> None:
    layers, facts = load_statistics(locate("bundled:cifar10_train_statistics", ".h5"))
    assert facts["extractor"] == NAME
    assert {layer: values["mu"].shape for layer, values in layers.items()} == {
        "pooled": (128,),
        "spatial": (128,),
    }


def test_only_the_scores_that_were_asked_for_are_there(reference: Path) -> None:
    scores = evaluate(random_images(40), None, Evaluation(scores=("sfid",)), files(reference))
    assert set(scores) == {"sfid", "psnr", "resamples", "floor", "conditions"}
    assert set(scores["resamples"]) == set(scores["floor"]) == {"sfid"}
    assert "inception_score_splits" not in scores["conditions"]


def test_without_real_images_there_is_no_reference_in_the_conditions() -> None:
    scores = evaluate(random_images(4), None, Evaluation(scores=("inception_score",)), files(None))
    assert set(scores) == {"inception_score", "psnr", "conditions"}
    assert set(scores["conditions"]) == {
        "images",
        "extractor",
        "extractor_sha256",
        "preparation",
        "scored_at_once",
        "inception_score_splits",
        *circumstances("cpu"),
    }


def test_precision_and_recall_know_generated_from_real(reference: Path) -> None:
    near = evaluate(random_images(40), None, ALL, files(reference))
    grey = random_images(40) // 64 + 126
    far = evaluate(grey, None, ALL, files(reference))
    assert far["precision"] < near["precision"]
    assert far["kid"] > near["kid"]


def test_the_stand_in_is_named_beside_the_number(reference: Path) -> None:
    scores = evaluate(
        random_images(8), None, Evaluation(scores=("fid",)), files(reference, instead_of="inception")
    )
    assert scores["conditions"]["extractor"] == NAME
    assert scores["conditions"]["instead_of"] == "inception"


@pytest.mark.parametrize(
    ("change", "settings", "other", "sentence"),
    [
        ({}, ALL, {}, "kid needs features of single real images"),
        (
            {"preparation": "none"},
            Evaluation(),
            {"resolution": 32},
            "was made with the preparation 'none', the images get 'centre crop",
        ),
        (
            {"weights_sha256": "0" * 64},
            Evaluation(),
            {"weights": locate("bundled:cifar10_classifier")},
            "was made with other weights than",
        ),
    ],
)
def test_a_reference_that_does_not_fit_is_refused(
    change: dict, settings: Evaluation, other: dict, sentence: str, reference: Path, tmp_path: Path
) -> None:
    layers, facts = load_statistics(reference)
    save_statistics(tmp_path / "other.h5", layers, facts | change)
    with pytest.raises(EdadmError, match=sentence):
        evaluate(random_images(4), None, settings, files(tmp_path / "other.h5", **other))


def test_a_reference_without_spatial_features_has_no_sfid(reference: Path, tmp_path: Path) -> None:
    layers, facts = load_statistics(reference)
    save_statistics(tmp_path / "pooled.h5", {"pooled": layers["pooled"]}, facts)
    with pytest.raises(
        EdadmError, match=r"pooled.h5 holds nothing to compute sfid from; take it out of `scores`"
    ):
        evaluate(random_images(4), None, Evaluation(), files(tmp_path / "pooled.h5"))


def test_ten_splits_have_a_spread(reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edadm.metrics.evaluate.SMALLEST_SPLIT", 4)
    scores = evaluate(random_images(40), None, Evaluation(scores=("inception_score",)), files(None))
    assert scores["conditions"]["inception_score_splits"] == 10
    assert 0 < scores["inception_score_spread"] < scores["inception_score"]


def test_features_that_are_no_numbers_give_no_score(reference: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = {"logits": torch.full((4, 10), torch.nan)}
    monkeypatch.setattr("edadm.metrics.measure.features_of", lambda *_: nothing)
    with pytest.raises(EdadmError, match=r"^inception_score is nan: features of these images are not finite"):
        evaluate(random_images(4), None, Evaluation(scores=("inception_score",)), files(None))


@pytest.mark.parametrize(
    ("score", "fewest"), [("fid", 2), ("kid", 2), ("precision_recall", 4), ("inception_score", 1)]
)
def test_a_score_of_too_few_images_is_refused(score: Any, fewest: int, reference: Path) -> None:
    settings = Evaluation(scores=(score,))
    assert evaluate(random_images(fewest), None, settings, files(reference))
    if fewest > 1:
        with pytest.raises(EdadmError, match=rf"^{score} is defined for {fewest} images or more, here are "):
            evaluate(random_images(fewest - 1), None, settings, files(reference))


@pytest.mark.parametrize("extractor", ["inception", "pytorch_fid"])
def test_statistics_of_another_size_are_refused_before_any_features(extractor: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", mu=np.zeros(64), sigma=np.eye(64))
    needed = files(tmp_path / "other.npz", extractor=extractor, weights=locate("bundled:cifar10_classifier"))
    with pytest.raises(
        EdadmError,
        match=rf"holds pooled statistics \(64,\) and \(64, 64\), those of '{extractor}' are \(2048,\)",
    ):
        evaluate(random_images(4), None, Evaluation(scores=("fid",), extractor=extractor), needed)


def test_paired_measures_need_neither_weights_nor_real_images() -> None:
    images, others = random_images(8), random_images(8, 2)
    scores = evaluate(images, others, Evaluation(scores=("ssim", "flip")), files(None))
    assert scores["ssim"] == pytest.approx(ssim(images, others).mean().item())
    assert scores["flip"] == pytest.approx(flip(images, others).mean().item())
    assert set(scores["resamples"]) == {"psnr", "ssim", "flip"}
    assert scores["conditions"] == {"images": 8} | circumstances("cpu")
    alone = evaluate(images, None, Evaluation(scores=("ssim", "flip")), files(None))
    assert set(alone) == {"psnr", "conditions"}


class Counted:
    """Images that count how often each is asked for."""

    def __init__(self, images: torch.Tensor):
        self.images = images
        self.asked = [0] * len(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        self.asked[index] += 1
        return self.images[index]


@pytest.mark.parametrize("threads", [1, 3])
def test_every_image_is_decoded_once_by_however_many_threads(threads: int, reference: Path) -> None:
    before = torch.get_num_threads()
    images, others = Counted(random_images(40)), Counted(random_images(40, 2))
    settings = Evaluation(scores=("fid", "inception_score", "ssim", "flip"), scored_at_once=16)
    plain = evaluate(images.images, others.images, settings, files(reference, resolution=None))
    try:
        torch.set_num_threads(threads)
        found = evaluate(images, others, settings, files(reference))
    finally:
        torch.set_num_threads(before)
    assert images.asked == others.asked == [1] * 40
    assert found["fid"] == pytest.approx(plain["fid"], rel=1e-4)
    assert found["psnr"] == plain["psnr"]
    assert found["conditions"]["scored_at_once"] == 16


def test_a_floor_is_computed_once_where_a_workflow_keeps_notes(
    reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Evaluation(scores=("fid",))
    without = evaluate(random_images(40), None, settings, files(reference))
    monkeypatch.setenv("EDADM_NOTES", str(tmp_path))
    assert evaluate(random_images(40), None, settings, files(reference)) == without
    monkeypatch.setattr("edadm.metrics.uncertainty.floor", lambda *_: pytest.fail("it was computed before"))
    again = evaluate(random_images(40, 3), None, settings, files(reference))
    assert again["floor"] == without["floor"]
