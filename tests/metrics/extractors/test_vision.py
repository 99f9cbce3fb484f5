"""DINOv2's and CLIP's features of small networks with random weights, and what is scored by them."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import timm
import torch
from PIL import Image

from edadm.config.files.scoring import Scoring
from edadm.config.schema import Evaluation
from edadm.errors import EdadmError
from edadm.metrics.evaluate import evaluate
from edadm.metrics.extractors import vision
from edadm.metrics.references import write_reference
from edadm.metrics.scores.cmmd import cmmd
from tests.metrics.drawn import random_images

IMAGES = random_images(3)
TINY = {
    "embed_dim": 16,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}


@pytest.fixture(scope="module")
def clip_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    (folder / "edadm-tiny-vision.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(folder)
    torch.save(open_clip.create_model("edadm-tiny-vision").state_dict(), folder / "clip.pt")
    return folder / "clip.pt"


def test_dinov2_gives_the_class_token_of_timms_network(tmp_path: Path) -> None:
    network = timm.create_model("vit_small_patch14_dinov2", num_classes=0, img_size=56).eval()
    torch.save(network.state_dict() | {"mask_token": torch.zeros(1)}, tmp_path / "dino.pt")
    found = vision.dinov2(tmp_path / "dino.pt", "vit_small_patch14_dinov2")
    (pooled,) = found(IMAGES)
    assert pooled.shape == (3, 384)
    resized = [
        np.asarray(Image.fromarray(of.permute(1, 2, 0).numpy()).resize((224, 224), Image.Resampling.BICUBIC))
        for of in IMAGES
    ]
    mean, deviation = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    pixels = torch.from_numpy((np.stack(resized) / 255 - mean) / deviation).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        expected = found.network.forward_features(pixels)[:, 0]
    torch.testing.assert_close(pooled, expected, rtol=0.05, atol=0.05)  # Pillow rounds to 8 bits
    torch.save({"head.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(EdadmError, match="is not DINOv2's ViT-L/14 in timm's layout"):
        vision.dinov2(tmp_path / "other.pt", "vit_small_patch14_dinov2")


def test_clip_gives_embeddings_of_length_one(clip_weights: Path) -> None:
    (pooled,) = vision.clip(clip_weights, "edadm-tiny-vision")(IMAGES)
    network = open_clip.create_model("edadm-tiny-vision", pretrained=str(clip_weights)).eval()
    mean, deviation = (torch.tensor(of)[:, None, None] for of in (vision._OPENAI))
    with torch.no_grad():
        expected = network.encode_image((IMAGES / 255 - mean) / deviation, normalize=True)
    torch.testing.assert_close(pooled, expected, rtol=1e-4, atol=1e-5)


def test_cmmd_is_of_clips_features_and_kept_real_ones(
    clip_weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny: Any = partial(vision.clip, name="edadm-tiny-vision")
    monkeypatch.setattr(vision, "clip", tiny)
    real, made = random_images(9, 1), tmp_path / "real.h5"
    write_reference(made, real, "clip", clip_weights, {"set": "noise"}, keep=9)
    settings = Evaluation(scores=("cmmd",), extractor="clip")
    monkeypatch.setattr("edadm.config.inputs.statistics.SIZES", {})  # of the whole network
    found = evaluate(IMAGES, None, settings, Scoring("clip", clip_weights, made, None))
    pooled = [tiny(clip_weights)(of)[0] for of in (IMAGES, real)]
    assert found["cmmd"] == pytest.approx(cmmd(*pooled), rel=1e-4)
    assert found["conditions"]["extractor"] == "clip"
    assert found["conditions"]["reference_features"] == 9
