"""Training of a first stage whose latents are drawn from Gaussians."""

from __future__ import annotations

import pytest
import torch

from edadm.training.latent.kl import DIVERGENCE, AutoencoderTrainer, decode, encode

from .data import PROMPTS, SETTINGS, autoencoder, pictures


def test_latents_are_means_and_make_diffusers_images() -> None:
    network, images = autoencoder(PROMPTS), pictures()[0]
    latents = encode(network, images, batch_size=5)
    expected = network.encode(images.float() / 127.5 - 1).latent_dist.mode()
    torch.testing.assert_close(latents.float(), expected, atol=5e-3, rtol=2e-3)
    drawn = ((network.decode(latents.float()).sample.clamp(-1, 1) + 1) * 127.5).round()
    assert (decode(network, latents, batch_size=5).float() - drawn).abs().max() <= 1


def test_the_loss_has_diffusers_divergence() -> None:
    network, (images, _) = autoencoder(PROMPTS), pictures()
    trainer = AutoencoderTrainer(network.requires_grad_(True), images, SETTINGS)
    batch, flip, noise = trainer._batch()
    assert noise.shape == (8, 4, 8, 8)
    loss = trainer._loss(batch, torch.zeros_like(flip), noise)
    clean = batch.float() / 127.5 - 1
    drawn = network.encode(clean).latent_dist
    decoded = network.decode(drawn.mean + drawn.std * noise).sample
    expected = (decoded - clean).abs().mean() + DIVERGENCE * drawn.kl().mean() / noise[0].numel()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_it_learns() -> None:
    trainer = AutoencoderTrainer(autoencoder(PROMPTS).train().requires_grad_(True), pictures()[0], SETTINGS)
    losses = [trainer.train_step().item() for _ in range(12)]
    assert sum(losses[-3:]) < 0.8 * sum(losses[:3])
