"""Training of a latent model: its first stage, its U-Net, and the files that hold both."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from edadm.conditions.words import vocabulary_size
from edadm.config.schema import Model
from edadm.errors import EdadmError
from edadm.networks.convert import convert_checkpoint
from edadm.networks.described.tensors import describe_tensors
from edadm.training.files import first_stage_in, write_lightning, write_weights
from edadm.training.latent.model import LatentModel

from ...networks.families import tiny
from .data import BRIEF, CLASSES, PROMPTS, SETTINGS, named_pictures, small

WORDS = ("cat", "dog", "grey", "photo", "of")
ENCODER = PROMPTS.conditioning.encoder.model_copy(update={"words": WORDS})
MODELS = {
    "classes": small(CLASSES),
    "prompts": small(PROMPTS).model_copy(
        update={
            "autoencoder": small(PROMPTS).autoencoder.model_copy(update={"scale": None}),
            "conditioning": PROMPTS.conditioning.model_copy(update={"encoder": ENCODER}),
        }
    ),
}
kinds = pytest.mark.parametrize("kind", MODELS)


@cache
def trained(kind: str) -> tuple[LatentModel, list[dict[str, Any]]]:
    """A model after a few steps; what it kept meanwhile."""
    torch.manual_seed(0)
    kept: list[dict[str, Any]] = []
    said: list[str] = []
    work = LatentModel(MODELS[kind], *named_pictures(32), said.append)
    work.train_first_stage(BRIEF)
    work.train_unet(BRIEF, None, lambda state, facts: kept.append({"state": state, "facts": facts}))
    assert [line.split()[0] for line in said] == ["step", "first", "step"]
    assert "dB of 16 images" in said[1]
    return work, kept


def from_file(kind: str, path: Path) -> Model:
    return MODELS[kind].model_copy(update={"checkpoint": str(path), "ema": "auto"})


@kinds
def test_both_files_hold_the_same_averages(kind: str, tmp_path: Path) -> None:
    work, kept = trained(kind)
    half, whole = tmp_path / "m.safetensors", tmp_path / "m.ckpt"
    write_weights(kept[-1]["state"], half, kept[-1]["facts"])
    write_lightning(*work.checkpoint(), whole)
    assert kept[-1]["facts"]["step"] == kept[-1]["facts"]["first_stage"]["step"] == 3
    with safe_open(half, "pt") as file:
        assert '"step": 3' in file.metadata()["edadm"]
        assert {name.split(".")[0] for name in file.keys()} == {  # noqa: SIM118 - a file is no dictionary
            "model",
            "first_stage_model",
            "cond_stage_model",
            *(["scale_factor"] if kind == "prompts" else []),
        }
    for part in MODELS[kind].parts:
        found = [convert_checkpoint(from_file(kind, path), part) for path in (half, whole)]
        assert found[0].keys() == found[1].keys()
        assert all(torch.equal(found[0][name].half(), found[1][name].half()) for name in found[0])
    averaged = work._trainer.average["unet.conv_in.weight"]
    torch.testing.assert_close(convert_checkpoint(from_file(kind, whole))["conv_in.weight"], averaged)
    raw = convert_checkpoint(from_file(kind, whole).model_copy(update={"ema": False}))["conv_in.weight"]
    assert torch.equal(raw, work._trainer.network["unet"].conv_in.weight)
    assert not torch.equal(raw, averaged)


@kinds
def test_a_first_stage_is_taken_from_a_file(kind: str, tmp_path: Path) -> None:
    work, kept = trained(kind)
    write_weights(kept[-1]["state"], tmp_path / "m.safetensors", {})
    other = LatentModel(MODELS[kind], *named_pictures(32), lambda line: None)
    other.train_first_stage(SETTINGS, known=first_stage_in(tmp_path / "m.safetensors"))
    assert "first_stage" not in other.facts
    expected: nn.Module = work._first
    found = other._first.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.state_dict().items())
    assert (
        other._scale
        == work._scale
        == (1 if kind == "classes" else pytest.approx(1 / other_deviation(other), rel=2e-3))
    )


def other_deviation(work: LatentModel) -> float:
    """Of the latents of all its images."""
    latents: Tensor = work._kind.encode(work._first, work.images)
    return latents.float().std().item()


def test_classes_are_looked_at_by_guidance() -> None:
    work, _ = trained("classes")
    found = work.shown((1.0, 3.0), 5)
    assert found.keys() == {1.0, 3.0}
    assert all(share.classes * 5 == pytest.approx(round(share.classes * 5)) for share in found.values())
    assert all(share.colours is None for share in found.values())
    with pytest.raises(EdadmError, match="told classes, not prompts; leave out --prompts"):
        work.prompts(2)
    with pytest.raises(EdadmError, match="no words of its own; leave out --tokenizer"):
        work.write_tokenizer(Path("tokenizer"))


def test_colours_are_looked_at_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    work, _ = trained("prompts")
    assert work.shown((1.0,), 5) == {}  # of two classes, which the classifier does not know
    assert work.prompts(3) == ["a photo of a grey cat", "a photo of a grey dog", "a photo of a grey cat"]
    monkeypatch.setattr("edadm.training.latent.model.CLASSES", ("cat", "dog"))
    found = work.shown((2.0,), 4)[2.0]
    assert found.colours is not None
    assert found.colours * 4 == pytest.approx(round(found.colours * 4))


def test_its_file_is_described_but_for_its_words(tmp_path: Path) -> None:
    _, kept = trained("prompts")
    write_weights(kept[-1]["state"], tmp_path / "m.safetensors", {})
    found = describe_tensors(tmp_path / "m.safetensors", {})
    size = vocabulary_size(WORDS)
    assert any(f"the file has {size} tokens, CLIP's vocabulary 49408" in line for line in found.left_open)
    assert found.settings["autoencoder"]["scale"] is None
    assert found.settings["conditioning"]["encoder"]["tokens"] == ENCODER.tokens


def test_other_tools_get_its_tokenizer(tmp_path: Path) -> None:
    work, _ = trained("prompts")
    work.write_tokenizer(tmp_path / "tokenizer")
    vocabulary = json.loads((tmp_path / "tokenizer" / "vocab.json").read_text())
    assert len(vocabulary) == vocabulary_size(WORDS)
    assert {"cat</w>", "photo</w>"} < vocabulary.keys()


@pytest.mark.parametrize("name", ["ldm4_bedroom", "ldm8_church"])
def test_other_models_are_refused(name: str) -> None:
    with pytest.raises(EdadmError, match="take such a model, as 'cifar10_latent' is"):
        LatentModel(tiny(name), *named_pictures(), lambda line: None)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(EdadmError, match="images have 32 x 32 pixels, the model's 16 x 16; resize them"):
        LatentModel(CLASSES, *named_pictures(32), lambda line: None)
