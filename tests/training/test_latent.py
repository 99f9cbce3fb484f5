"""Training of a latent model: its first stage, its U-Net, and the files that hold both."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from edadm.conditions.classes import ClassEmbedding
from edadm.config.schema import Model
from edadm.errors import EdadmError
from edadm.networks.autoencoder import build_autoencoder
from edadm.networks.build import build_network
from edadm.networks.convert import convert_checkpoint
from edadm.sampling.schedule import alphas_cumprod
from edadm.training.autoencoder import AutoencoderTrainer, decode, encode, nearest, standardise
from edadm.training.files import first_stage_in, write_lightning, write_weights
from edadm.training.latent import LatentTrainer
from edadm.training.latent_model import LatentModel
from edadm.training.trainer import Training

from ..networks.families import random_network, tiny

MODEL = tiny("ldm4_imagenet")
SMALL = MODEL.model_copy(
    update={"autoencoder": MODEL.autoencoder.model_copy(update={"multipliers": (1, 1, 1)})}
)  # of images of the classifier's size
SETTINGS = Training(steps=30, batch_size=8, warmup=1, learning_rate=3e-3)
BRIEF = Training(steps=6, batch_size=4, warmup=1)


def pictures(side: int = 16) -> tuple[Tensor, Tensor]:
    """Two classes, told apart by the half that is light."""
    labels = torch.arange(16) % 2
    images = torch.randint(0, 60, (16, 3, side, side), generator=torch.Generator().manual_seed(0))
    images[labels == 1, :, : side // 2] += 150
    images[labels == 0, :, side // 2 :] += 150
    return images.to(torch.uint8), labels


def autoencoder() -> Any:
    assert MODEL.autoencoder is not None
    return random_network(build_autoencoder(MODEL.autoencoder), 1)


def test_the_nearest_code_is_nearest() -> None:
    generator = torch.Generator().manual_seed(0)
    latents, codes = torch.randn(2, 3, 4, 5, generator=generator), torch.randn(32, 3, generator=generator)
    rows = latents.permute(0, 2, 3, 1).reshape(-1, 3)
    expected = torch.cdist(rows.double(), codes.double()).argmin(1)
    assert nearest(latents, codes).flatten().tolist() == expected.tolist()


def test_standardised_latents_make_the_same_images() -> None:
    network, images = autoencoder(), pictures()[0]
    before = encode(network, images, batch_size=5)
    made = decode(network, before, batch_size=5)
    expected = ((network.decode(before.float()).sample.clamp(-1, 1) + 1) * 127.5).round()
    assert (made.float() - expected).abs().max() <= 1
    standardise(network, before)
    after = encode(network, images).float()
    torch.testing.assert_close(after.mean((0, 2, 3)), torch.zeros(3), atol=2e-3, rtol=0)
    assert after.var().item() == pytest.approx(1, abs=5e-3)
    changed = (decode(network, after).float() - made.float()).abs()
    assert changed.mean() < 1  # fp16 latents may fall to another code here and there
    assert changed.max(0).values.gt(0).float().mean() < 1


def test_the_first_stage_learns_and_its_codes_are_latents_of_images() -> None:
    network, (images, _) = autoencoder().train().requires_grad_(True), pictures()
    trainer = AutoencoderTrainer(network, images, SETTINGS)
    codes = network.quantize.embedding.weight
    untouched = codes.detach().clone()
    losses = [trainer.train_step().item() for _ in range(3)]
    assert torch.equal(codes, untouched)
    trainer.seed_codes()
    seeded, found = codes.detach().clone(), encode(network, images).float()
    rows = found.permute(0, 2, 3, 1).reshape(-1, 3)
    assert torch.cdist(seeded, rows).min(1).values.max() < 1e-2  # flips are drawn, not encoded, for codes
    assert torch.equal(trainer.average["quantize.embedding.weight"], seeded)
    losses += [trainer.train_step().item() for _ in range(27)]
    assert not torch.equal(codes, seeded)
    assert sum(losses[-5:]) < 0.8 * sum(losses[3:8])


def latent_trainer(settings: Training, classes: int = 2) -> LatentTrainer:
    torch.manual_seed(0)
    latents = torch.randn(2, 3, 8, 8).repeat(8, 1, 1, 1).half()
    unet, embedding = build_network(MODEL.architecture), ClassEmbedding(classes, 12)
    labels = torch.arange(16) % 2
    return LatentTrainer(unet, embedding, latents, labels, alphas_cumprod(MODEL.schedule), settings)


def test_the_unet_begins_with_no_noise_and_learns() -> None:
    trainer = latent_trainer(SETTINGS)
    latents, _, t, eps = trainer._batch()
    alphas = alphas_cumprod(MODEL.schedule)[t]
    weights = (5 * (1 - alphas) / alphas).clamp(max=1).float()
    first = trainer._loss(latents, torch.zeros_like(t), t, eps).item()
    assert first == pytest.approx((weights * eps.square().mean((1, 2, 3))).mean().item(), rel=1e-5)
    losses = [trainer.train_step().item() for _ in range(30)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_a_tenth_is_told_no_class() -> None:
    trainer = latent_trainer(Training(batch_size=4000))
    labels = trainer._batch()[1]
    assert set(labels.tolist()) == {0, 1, 2}
    assert (labels == 2).float().mean().item() == pytest.approx(0.1, abs=0.02)


@cache
def trained() -> tuple[LatentModel, list[dict[str, Any]]]:
    """A model of ten classes after a few steps; what it kept meanwhile."""
    torch.manual_seed(0)
    kept: list[dict[str, Any]] = []
    said: list[str] = []
    work = LatentModel(SMALL, *pictures(32), said.append)
    work.train_first_stage(BRIEF)
    work.train_unet(BRIEF, None, lambda state, facts: kept.append({"state": state, "facts": facts}))
    assert [line.split()[0] for line in said] == ["step", "first", "step"]
    assert "dB of 16 images" in said[1]
    return work, kept


def from_file(path: Path) -> Model:
    return SMALL.model_copy(update={"checkpoint": str(path), "ema": "auto"})


def test_both_files_hold_the_same_averages(tmp_path: Path) -> None:
    work, kept = trained()
    half, whole = tmp_path / "m.safetensors", tmp_path / "m.ckpt"
    write_weights(kept[-1]["state"], half, kept[-1]["facts"])
    write_lightning(*work.checkpoint(), whole)
    assert kept[-1]["facts"]["step"] == kept[-1]["facts"]["first_stage"]["step"] == 6
    with safe_open(half, "pt") as file:
        assert '"step": 6' in file.metadata()["edadm"]
        assert {name.split(".")[0] for name in file.keys()} == {  # noqa: SIM118 - a file is no dictionary
            "model",
            "first_stage_model",
            "cond_stage_model",
        }
    for part in MODEL.parts:
        found = [convert_checkpoint(from_file(path), part) for path in (half, whole)]
        assert found[0].keys() == found[1].keys()
        assert all(torch.equal(found[0][name].half(), found[1][name].half()) for name in found[0])
    averaged = work._trainer.average["unet.conv_in.weight"]
    torch.testing.assert_close(convert_checkpoint(from_file(whole))["conv_in.weight"], averaged)
    raw = convert_checkpoint(from_file(whole).model_copy(update={"ema": False}))["conv_in.weight"]
    assert torch.equal(raw, work._trainer.network["unet"].conv_in.weight)
    assert not torch.equal(raw, averaged)


def test_a_first_stage_is_taken_from_a_file(tmp_path: Path) -> None:
    work, kept = trained()
    write_weights(kept[-1]["state"], tmp_path / "m.safetensors", {})
    other = LatentModel(SMALL, *pictures(32), lambda line: None)
    other.train_first_stage(SETTINGS, known=first_stage_in(tmp_path / "m.safetensors"))
    assert "first_stage" not in other.facts
    expected: nn.Module = work._first
    found = other._first.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.state_dict().items())


def test_classes_are_looked_at_by_guidance() -> None:
    work, _ = trained()
    found = work.class_accuracies((1.0, 3.0), 5)
    assert found.keys() == {1.0, 3.0}
    assert all(share * 5 == pytest.approx(round(share * 5)) for share in found.values())


@pytest.mark.parametrize("name", ["ldm4_bedroom", "sd14_coco"])
def test_other_models_are_refused(name: str) -> None:
    with pytest.raises(EdadmError, match="take such a model, as 'cifar10_latent' is"):
        LatentModel(tiny(name), *pictures(), lambda line: None)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(EdadmError, match="images have 32 x 32 pixels, the model's 16 x 16; resize them"):
        LatentModel(MODEL, *pictures(32), lambda line: None)
