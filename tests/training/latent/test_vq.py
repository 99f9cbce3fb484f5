"""Training of a first stage with a codebook."""

from __future__ import annotations

import pytest
import torch

from edadm.training.latent.vq import AutoencoderTrainer, about, decode, encode, nearest, settle

from .data import CLASSES, SETTINGS, autoencoder, pictures


def test_the_nearest_code_is_nearest() -> None:
    generator = torch.Generator().manual_seed(0)
    latents, codes = torch.randn(2, 3, 4, 5, generator=generator), torch.randn(32, 3, generator=generator)
    rows = latents.permute(0, 2, 3, 1).reshape(-1, 3)
    expected = torch.cdist(rows.double(), codes.double()).argmin(1)
    assert nearest(latents, codes).flatten().tolist() == expected.tolist()


def test_settled_latents_make_the_same_images() -> None:
    network, images = autoencoder(CLASSES), pictures()[0]
    before = encode(network, images, batch_size=5)
    made = decode(network, before, batch_size=5)
    expected = ((network.decode(before.float()).sample.clamp(-1, 1) + 1) * 127.5).round()
    assert (made.float() - expected).abs().max() <= 1
    settle(network, before)
    after = encode(network, images).float()
    torch.testing.assert_close(after.mean((0, 2, 3)), torch.zeros(3), atol=2e-3, rtol=0)
    assert after.var().item() == pytest.approx(1, abs=5e-3)
    changed = (decode(network, after).float() - made.float()).abs()
    assert changed.mean() < 1  # fp16 latents may fall to another code here and there
    assert changed.max(0).values.gt(0).float().mean() < 1


def test_it_learns_and_its_codes_are_latents_of_images() -> None:
    network, (images, _) = autoencoder(CLASSES).train().requires_grad_(True), pictures()
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


def test_codes_in_use_are_counted() -> None:
    network = autoencoder(CLASSES)
    codes = network.quantize.embedding.weight
    assert about(network, codes[[3, 3, 7, 9], :, None, None]) == "3 of 32 codes in use by them, "
