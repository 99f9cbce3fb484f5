"""How many latents are decoded at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edadm.networks import autoencoder as module
from edadm.networks.autoencoder import LatentDecoder, build_autoencoder
from edadm.networks.settings.parts import Autoencoder

TINY = Autoencoder(
    kind="kl", latent_channels=4, channels=8, multipliers=(1, 2), blocks_per_level=1, norm_groups=4, scale=0.5
)


@pytest.mark.parametrize(("side", "images"), [(64, 8), (512, 8), (768, 3), (1024, 2), (2048, 1)])
def test_large_images_are_decoded_fewer_at_once(side: int, images: int) -> None:
    with torch.device("meta"):
        decoder = LatentDecoder(build_autoencoder(TINY), 1.0)
    assert decoder.at_once((4, side // 2, side // 2)) == images


@torch.no_grad()
def test_images_are_the_same_in_however_many_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    decoder, seen = LatentDecoder(build_autoencoder(TINY).eval(), 0.5), []
    latents: Tensor = torch.randn(5, 4, 4, 6)
    whole = decoder(latents)
    decoder.autoencoder.decoder.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    monkeypatch.setattr(module, "PIXELS", 2 * 8 * 12 + 1)
    parts = decoder(latents)
    assert seen == [2, 2, 1]
    assert whole.shape == (5, 3, 8, 12)
    torch.testing.assert_close(parts, whole)
    alone = decoder.autoencoder.decode(latents[:1] / 0.5, return_dict=False)[0]
    torch.testing.assert_close(parts[:1], alone)
