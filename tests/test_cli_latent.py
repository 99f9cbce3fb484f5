"""The bundled latent model: from its file to images of the classes that it was told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from edadm.config.files.sources import prompts_file
from edadm.config.load import load_config
from edadm.networks.classifier import CLASSES
from edadm.training.classifier import accuracy
from edadm.training.latent.colours import COLOURS, colours_of
from edadm.training.latent.model import bundled_classifier

from .test_cli import edadm

SETTINGS = {"images": 4, "batch_size": 4, "shards": 1, "scores": ["class_accuracy"]}


def test_the_bundled_latent_model_draws_what_it_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """By its card, 1.1 of 100 images that are guided by 3 in 20 steps are of another class."""
    preset = load_config().models["cifar10_latent"]
    assert preset.conditioning is not None
    guided = preset.conditioning.model_copy(update={"guidance": 3.0})
    few = preset.sampler.model_copy(update={"steps": 10})
    changed = preset.model_copy(update={"conditioning": guided, "sampler": few})
    model = ("--model", changed.model_dump_json())
    evaluation, samples = ("--evaluation", json.dumps(SETTINGS)), tmp_path / "0.npy"
    for part in preset.parts:
        output = ("--output", tmp_path / f"{part}.safetensors")
        assert edadm("convert-checkpoint", *model, "--part", part, *output) == 0
    parts = [word for part in preset.parts[1:] for word in (f"--{part}", tmp_path / f"{part}.safetensors")]
    weights = ("--weights", tmp_path / "unet.safetensors", *parts, "--output", samples)
    assert edadm("generate", *model, *evaluation, *weights) == 0
    assert edadm("evaluate", samples, *evaluation, "--output", tmp_path / "metrics.json") == 0
    scores = json.loads((tmp_path / "metrics.json").read_text())
    assert scores["class_accuracy"] >= 0.75


def test_the_bundled_latent_model_draws_what_prompts_ask_for(tmp_path: Path) -> None:
    """By its card, 1.9 of 100 images that are guided by 3 in 20 steps are of another class."""
    preset = load_config().models["cifar10_latent_text"]
    assert preset.conditioning is not None
    assert preset.conditioning.prompts is not None
    few = preset.model_copy(update={"sampler": preset.sampler.model_copy(update={"steps": 10})})
    model = ("--model", few.model_dump_json())
    for part in preset.parts:
        output = ("--output", tmp_path / f"{part}.safetensors")
        assert edadm("convert-checkpoint", *model, "--part", part, *output) == 0
    parts = [word for part in preset.parts[1:] for word in (f"--{part}", tmp_path / f"{part}.safetensors")]
    weights = ("--weights", tmp_path / "unet.safetensors", *parts, "--output", tmp_path / "0.npy")
    evaluation = json.dumps(SETTINGS | {"images": 8, "batch_size": 8, "scores": ["fid"]})
    assert edadm("generate", *model, "--evaluation", evaluation, *weights) == 0
    images = torch.from_numpy(np.load(tmp_path / "0.npy"))
    asked = [
        line.split()[-2:] for line in prompts_file(preset.conditioning.prompts).read_text().split("\n")[:8]
    ]
    labels = torch.tensor([CLASSES.index(name) for _, name in asked])
    assert accuracy(bundled_classifier(), images, labels) >= 0.75
    same = [COLOURS[found] == colour for found, (colour, _) in zip(colours_of(images), asked, strict=True)]
    assert sum(same) >= 5
