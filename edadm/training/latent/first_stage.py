"""What trainings of first stages have in common: images that go through latents."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from edadm.training.trainer import Trainer, Training


class FirstStageTrainer(Trainer):
    """Minimises an error of images that went through latents, of which flips are trained as well.

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

    def _batch(self) -> tuple[Tensor, ...]:
        return self._images[self._integers(len(self._images))], self._integers(2).bool()

    def _clean(self, images: UInt8[Tensor, "n c h w"], flip: Tensor) -> Float[Tensor, "n c h w"]:
        """The images, some of them flipped."""
        clean = as_clean(images)
        clean = torch.where(flip[:, None, None, None], clean.flip(3), clean)
        return clean.contiguous(memory_format=torch.channels_last)

    def _encoded(self, clean: Float[Tensor, "n c h w"]) -> Float[Tensor, "n e i j"]:
        network: Any = self.network
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            return network.quant_conv(network.encoder(clean)).float()

    def _decoded(self, latents: Float[Tensor, "n d i j"]) -> Float[Tensor, "n c h w"]:
        network: Any = self.network
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            return network.decoder(network.post_quant_conv(latents)).float()


def as_clean(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Images in [0, 255] as an encoder sees them, in [-1, 1]."""
    return images.float() / 127.5 - 1


def as_images(pixels: Float[Tensor, "n c h w"]) -> UInt8[Tensor, "n c h w"]:
    """What a decoder made, as images in [0, 255]."""
    return ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
