"""Training of a first stage with latents drawn from Gaussians, as Stable Diffusion's (arXiv 1312.6114)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from edadm.training.latent.first_stage import FirstStageTrainer, as_clean, as_images
from edadm.training.trainer import Training

DIVERGENCE = 1e-4  # weight of what draws each latent's Gaussian to the unit one


class AutoencoderTrainer(FirstStageTrainer):
    """Minimises the absolute error of images, and how far the Gaussians of latents are from the unit one."""

    def __init__(
        self,
        autoencoder: Any,
        images: UInt8[Tensor, "n c h w"],
        settings: Training,
        compiled: bool = False,
    ):
        super().__init__(autoencoder, images, settings, compiled)
        factor = 2 ** (len(autoencoder.config["block_out_channels"]) - 1)
        height, width = images.shape[-2:]
        self._shape = (autoencoder.config["latent_channels"], height // factor, width // factor)

    def _batch(self) -> tuple[Tensor, ...]:
        images, flip = super()._batch()
        noise = torch.randn((len(images), *self._shape), generator=self._generator, device=self.device)
        return images, flip, noise

    def _loss(self, *batch: Tensor) -> Float[Tensor, ""]:
        images, flip, noise = batch
        clean = self._clean(images, flip)
        mean, log_variance = self._encoded(clean).chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        latents = mean + (0.5 * log_variance).exp() * noise
        return F.l1_loss(self._decoded(latents), clean) + DIVERGENCE * divergence


def settle(autoencoder: Any, latents: Float[Tensor, "n d i j"]) -> None:
    """Leaves an autoencoder as it was trained: the scale of its latents stands beside it."""


@torch.no_grad()
def encode(
    autoencoder: Any, images: UInt8[Tensor, "n c h w"], batch_size: int = 1000
) -> Float[Tensor, "n d i j"]:
    """The means of images' latents, in fp16; images in [0, 255]."""
    parts = (
        autoencoder.quant_conv(autoencoder.encoder(as_clean(part))).chunk(2, dim=1)[0].half()
        for part in images.split(batch_size)
    )
    return torch.cat(list(parts))


@torch.no_grad()
def decode(
    autoencoder: Any, latents: Float[Tensor, "n d i j"], batch_size: int = 1000
) -> UInt8[Tensor, "n c h w"]:
    """Images in [0, 255] of latents."""
    parts = latents.float().split(batch_size)
    return torch.cat([as_images(autoencoder.decoder(autoencoder.post_quant_conv(part))) for part in parts])


def about(autoencoder: Any, latents: Float[Tensor, "n d i j"]) -> str:
    """What there is to say of these latents beside their mean and variance: nothing."""
    return ""
