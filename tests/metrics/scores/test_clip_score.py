"""CLIP score with a tiny model of random weights."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from edadm.config.files.scoring import Scoring
from edadm.config.files.sources import file_sha256
from edadm.config.schema import Evaluation
from edadm.errors import EdadmError
from edadm.metrics.circumstances import circumstances
from edadm.metrics.evaluate import evaluate
from edadm.metrics.scores.clip_score import ClipScore, load_clip
from tests.metrics.drawn import random_images

PROMPTS = ["a puppy wearing a hat", "two trains", "a bowl of fruit"]
CONFIG = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    (folder / "edadm-tiny.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / "edadm-tiny.json")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.create_model("edadm-tiny", pretrained=None)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "tiny.safetensors",
    )
    return folder / "tiny.safetensors"


def test_the_score_is_a_hundred_times_the_cosine(weights: Path) -> None:
    images = random_images(3)
    score = ClipScore("edadm-tiny", weights, batch_size=2)
    ready = torch.stack([score.prepare(image) for image in images])
    found = score(ready, PROMPTS)
    model, _, prepare = open_clip.create_model_and_transforms("edadm-tiny", pretrained=str(weights))
    pixels = torch.stack([prepare(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in images])
    seen, read = (
        model.eval().encode_image(pixels),
        model.encode_text(open_clip.get_tokenizer("edadm-tiny")(PROMPTS)),
    )
    expected = 100 * torch.nn.functional.cosine_similarity(seen, read)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-3)
    assert not torch.allclose(found, score(ready, PROMPTS[::-1]))


def test_evaluate_gives_it_with_its_conditions(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS[:2]))
    prompts = str(tmp_path / "prompts.txt")
    settings = Evaluation(
        scores=("clip_score",), prompts=prompts, clip_model="edadm-tiny", clip_weights=str(weights)
    )
    scores = evaluate(
        random_images(2), None, settings, Scoring("cifar10_classifier", None, None, None, weights)
    )
    score = ClipScore("edadm-tiny", weights)
    ready = torch.stack([score.prepare(image) for image in random_images(2)])
    assert scores["clip_score"] == pytest.approx(score(ready, PROMPTS[:2]).mean().item())
    assert scores["conditions"] == {
        "images": 2,
        "clip_model": "edadm-tiny",
        "clip_sha256": file_sha256(weights),
        "prompts_sha256": file_sha256(tmp_path / "prompts.txt"),
        "captions_per_image": 1,
    } | circumstances("cpu")


def test_one_prompt_too_many_is_refused_before_anything_is_computed(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("\n".join(PROMPTS))
    settings = Evaluation(
        scores=("clip_score",), prompts=str(tmp_path / "prompts.txt"), clip_weights=str(weights)
    )
    with pytest.raises(
        EdadmError,
        match=r"prompts\.txt holds 3 prompts for 2 images; give exactly one per image, in their order",
    ):
        evaluate(
            random_images(2),
            None,
            settings,
            Scoring("cifar10_classifier", None, None, None, tmp_path / "absent.pth"),
        )


def test_other_models_and_weights_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(EdadmError, match="open_clip has no model 'ViT-Z'"):
        load_clip("ViT-Z", weights, "cpu")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(EdadmError, match=r"other\.safetensors does not fit edadm-tiny \(Missing key"):
        load_clip("edadm-tiny", tmp_path / "other.safetensors", "cpu")
