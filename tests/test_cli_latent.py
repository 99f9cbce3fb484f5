"""The bundled latent model: from its file to images of the classes that it was told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edadm.config.load import load_config

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
