"""What an evaluation needs, and the sentences when it is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edadm.config.files.scoring import scoring, scoring_of
from edadm.config.files.sources import locate
from edadm.config.load import load_config
from edadm.config.schema import Evaluation
from edadm.errors import EdadmError

BUNDLED = locate("bundled:cifar10_train_statistics", ".h5")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with weights, real images and prompts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real").mkdir()
    for name in ("inception.pth", "clip.safetensors", "prompts.txt", "real/0.png"):
        (tmp_path / name).write_text("x")
    sizes = {"mu": 2048, "mu_s": 2023}
    np.savez_compressed(
        tmp_path / "stats.npz",
        **{name: np.zeros(size, np.float32) for name, size in sizes.items()},
        **{name.replace("mu", "sigma"): np.zeros((size, size), np.float32) for name, size in sizes.items()},
    )
    return tmp_path


def test_the_main_job_needs_nothing_but_the_package() -> None:
    found = scoring(load_config().evaluations["quick"])
    assert (found.extractor, found.weights, found.reference, found.resolution) == (
        "cifar10_classifier",
        None,
        BUNDLED,
        None,
    )
    assert (found.clip_weights, found.instead_of) == (None, None)


@pytest.mark.parametrize("reference", ["stats.npz", "real"])
def test_weights_and_references_are_found(reference: str, place: Path) -> None:
    settings = Evaluation(
        extractor="inception", extractor_weights="inception.pth", reference=reference, resolution=64
    )
    found = scoring(settings)
    assert (found.extractor, found.weights, found.reference) == (
        "inception",
        Path("inception.pth"),
        Path(reference),
    )
    assert found.resolution == 64


@pytest.mark.parametrize("extractor", ["inception", "pytorch_fid"])
def test_absent_weights_are_never_replaced_silently(extractor: Any, place: Path) -> None:
    name = {"inception": "torch_fidelity_inception", "pytorch_fid": "pytorch_fid_inception"}[extractor]
    with pytest.raises(
        EdadmError,
        match=rf"'{extractor}' needs weights, and `extractor_weights` is not set: .*`edadm download {name} ",
    ):
        scoring(Evaluation(extractor=extractor, reference="stats.npz"))
    with pytest.raises(
        EdadmError,
        match=rf"there is no file w/i\.pth: put .* there with `edadm download {name} --output w/i\.pth`",
    ):
        scoring(Evaluation(extractor=extractor, extractor_weights="w/i.pth", reference="stats.npz"))


def test_with_a_fallback_the_bundled_classifier_stands_in_and_is_named(place: Path) -> None:
    settings = Evaluation(
        extractor="inception",
        extractor_weights="absent.pth",
        reference="stats.npz",
        fallback_reference="real",
    )
    found = scoring(settings)
    assert (found.extractor, found.weights, found.instead_of) == ("cifar10_classifier", None, "inception")
    assert (found.reference, found.resolution) == (Path("real"), 32)
    there = scoring(settings.model_copy(update={"extractor_weights": "inception.pth"}))
    assert (there.extractor, there.instead_of, there.reference) == ("inception", None, Path("stats.npz"))


def test_the_clip_score_alone_needs_no_inception(place: Path) -> None:
    settings = Evaluation(
        scores=("clip_score",), extractor="inception", prompts="prompts.txt", clip_weights="clip.safetensors"
    )
    found = scoring(settings)
    assert (found.clip_weights, found.reference, found.weights) == (Path("clip.safetensors"), None, None)


def test_prompts_need_not_be_named_for_models_that_are_given_some(place: Path) -> None:
    few = {"scores": ["clip_score"], "clip_weights": "clip.safetensors"}
    runs = [
        {"model": model, "variants": ["fp32"], "evaluation": "few"}
        for model in ("sd14_coco", "ldm4_imagenet")
    ]
    given, mixed = (load_config({"evaluations": {"few": few}, "runs": chosen}) for chosen in (runs[:1], runs))
    assert scoring_of("few", given).clip_weights == Path("clip.safetensors")
    with pytest.raises(
        EdadmError, match=r"^evaluations\.few: clip_score compares images with their prompts: set `prompts`"
    ):
        scoring_of("few", mixed)
    few["prompts"] = "absent.txt"
    with pytest.raises(EdadmError, match=r"there is no file absent\.txt; mend `prompts`"):
        scoring_of("few", load_config({"evaluations": {"few": few}, "runs": runs[:1]}))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"reference": "real"}, "real holds images of any size; set `resolution`"),
        (
            {"reference": "absent"},
            r"there is no file absent; .*or a folder or archive of real images, or an \.npz",
        ),
        ({"scores": ("clip_score",)}, "compares images with their prompts: set `prompts`"),
        (
            {"scores": ("clip_score",), "prompts": "absent.txt"},
            r"there is no file absent\.txt; mend `prompts`",
        ),
        (
            {"scores": ("clip_score",), "prompts": "prompts.txt"},
            "`clip_weights` is not set: .*`edadm download clip_vit_l_14 --output",
        ),
    ],
)
def test_what_is_absent_is_told(changes: dict[str, Any], sentence: str, place: Path) -> None:
    with pytest.raises(EdadmError, match=sentence):
        scoring(Evaluation(**changes))
