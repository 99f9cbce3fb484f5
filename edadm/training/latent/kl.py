"""Training of a first stage with latents drawn from Gaussians, as Stable Diffusion's (arXiv 1312.6114)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from edadm.training.trainer import Trainer, Training

DIVERGENCE = 1e-4  # weight of what draws each latent's Gaussian to the unit one


class AutoencoderTrainer(Trainer):
    """Minimises the absolute error of images that went through latents, of which flips are trained as well.

    Args:
        autoencoder: trained in place, on the device of `images`.
        images: the whole data set, uint8 in [0, 255].
        settings: batch size, learning rate and so on.
        compiled: see `Trainer`.
    """

    def __init__(
        self,
        autoencoder: Any,
        images: UInt8[Tensor, "n c h w"],
        settings: Training,
        compiled: bool = False,
    ):
        super().__init__(autoencoder, settings, images.device, compiled)
        self._images = images
        factor = 2 ** (len(autoencoder.config["block_out_channels"]) - 1)
        height, width = images.shape[-2:]
        self._shape = (autoencoder.config["latent_channels"], height // factor, width // factor)

    def _batch(self) -> tuple[Tensor, ...]:
        images, flip = self._images[self._integers(len(self._images))], self._integers(2).bool()
        noise = torch.randn((len(images), *self._shape), generator=self._generator, device=self.device)
        return images, flip, noise

    def _loss(self, *batch: Tensor) -> Float[Tensor, ""]:
        images, flip, noise = batch
        network: Any = self.network
        clean = images.float() / 127.5 - 1
        clean = torch.where(flip[:, None, None, None], clean.flip(3), clean)
        clean = clean.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            moments = network.quant_conv(network.encoder(clean)).float()
        mean, log_variance = moments.chunk(2, dim=1)
        log_variance = log_variance.clamp(-30, 20)
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        latents = mean + (0.5 * log_variance).exp() * noise
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            decoded = network.decoder(network.post_quant_conv(latents))
        return F.l1_loss(decoded.float(), clean) + DIVERGENCE * divergence


def settle(autoencoder: Any, latents: Float[Tensor, "n d i j"]) -> None:
    """Leaves an autoencoder as it was trained: the scale of its latents stands beside it."""


@torch.no_grad()
def encode(
    autoencoder: Any, images: UInt8[Tensor, "n c h w"], batch_size: int = 1000
) -> Float[Tensor, "n d i j"]:
    """The means of images' latents, in fp16; images in [0, 255]."""
    parts = (
        autoencoder.quant_conv(autoencoder.encoder(part.float() / 127.5 - 1)).chunk(2, dim=1)[0].half()
        for part in images.split(batch_size)
    )
    return torch.cat(list(parts))


@torch.no_grad()
def decode(
    autoencoder: Any, latents: Float[Tensor, "n d i j"], batch_size: int = 1000
) -> UInt8[Tensor, "n c h w"]:
    """Images in [0, 255] of latents."""
    parts = (
        autoencoder.decoder(autoencoder.post_quant_conv(part)) for part in latents.float().split(batch_size)
    )
    return torch.cat([((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8) for pixels in parts])


def about(autoencoder: Any, latents: Float[Tensor, "n d i j"]) -> str:
    """What there is to say of these latents beside their mean and variance: nothing."""
    return ""
