"""Training of a U-Net on latents."""

from __future__ import annotations

import pytest
import torch

from edadm.networks.build import build_network
from edadm.sampling.schedule import alphas_cumprod
from edadm.training.latent.classes import ToldClasses
from edadm.training.latent.unet import LatentTrainer
from edadm.training.trainer import Training

from .data import CLASSES, SETTINGS, named_pictures

TWO = CLASSES.model_copy(update={"conditioning": CLASSES.conditioning.model_copy(update={"classes": 2})})


def latent_trainer(settings: Training) -> LatentTrainer:
    torch.manual_seed(0)
    latents = torch.randn(2, 3, 8, 8).repeat(8, 1, 1, 1).half()
    unet, told = build_network(CLASSES.architecture), ToldClasses(TWO, *named_pictures())
    return LatentTrainer(unet, told, latents, alphas_cumprod(CLASSES.schedule), settings)


def test_the_unet_begins_with_no_noise_and_learns() -> None:
    trainer = latent_trainer(SETTINGS)
    latents, _, t, eps = trainer._batch()
    alphas = alphas_cumprod(CLASSES.schedule)[t]
    weights = (5 * (1 - alphas) / alphas).clamp(max=1).float()
    first = trainer._loss(latents, torch.zeros_like(t), t, eps).item()
    assert first == pytest.approx((weights * eps.square().mean((1, 2, 3))).mean().item(), rel=1e-5)
    losses = [trainer.train_step().item() for _ in range(30)]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])


def test_a_tenth_is_told_nothing() -> None:
    trainer = latent_trainer(Training(batch_size=4000))
    numbers = trainer._batch()[1]
    assert set(numbers.tolist()) == {0, 1, 2}
    assert (numbers == 2).float().mean().item() == pytest.approx(0.1, abs=0.02)


def test_of_several_contexts_each_is_drawn_by_its_own_images() -> None:
    trainer = latent_trainer(Training(batch_size=4000))
    trainer._latents = torch.arange(16.0)[:, None, None, None].expand(16, 3, 8, 8)
    trainer._numbers = torch.stack([torch.arange(16), torch.arange(16) + 16], 1)
    trainer._nothing = 99
    latents, numbers, *_ = trainer._batch()
    told = numbers != 99
    assert (numbers % 16 == latents[:, 0, 0, 0])[told].all()
    assert (numbers[told] >= 16).float().mean().item() == pytest.approx(0.5, abs=0.03)
