"""Training of a vector-quantized first stage (arXiv 1711.00937), with latents of mean 0 and variance 1."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from edadm.training.latent.first_stage import FirstStageTrainer, as_clean, as_images
from edadm.training.trainer import Training

COMMITMENT = 0.25  # weight of what draws latents to their codes (section 3.2)
SEEDED = 0.1  # share of the steps after which the codes become latents of images, and are used
_CODES = "quantize.embedding.weight"


class AutoencoderTrainer(FirstStageTrainer):
    """Minimises the absolute error of images, and how far latents are from their codes.

    First without codes. Then latents of training images, drawn at random, become the codes, so that nearly
    all are in use from the beginning, and follow their latents by the errors' gradients.
    """

    def __init__(
        self,
        autoencoder: Any,
        images: UInt8[Tensor, "n c h w"],
        settings: Training,
        compiled: bool = False,
    ):
        super().__init__(autoencoder, images, settings, compiled)
        self._seeded, self._with_codes = False, torch.zeros((), device=self.device)

    def train_step(self) -> Float[Tensor, ""]:
        if not self._seeded and self.step >= SEEDED * self.settings.steps:
            self.seed_codes()
        return super().train_step()

    @torch.no_grad()
    def seed_codes(self) -> None:
        """Makes latents of images, drawn at random, the codes."""
        network: Any = self.network
        codes = network.quantize.embedding.weight
        rows: list[Tensor] = []
        while sum(len(found) for found in rows) < 4 * len(codes):
            images, _ = self._batch()
            rows.append(_as_rows(network.quant_conv(network.encoder(as_clean(images)))))
        found = torch.cat(rows)
        order = torch.randperm(len(found), generator=self._generator, device=self.device)
        codes.copy_(found[order[: len(codes)]])
        self.average[_CODES].copy_(codes)
        self._seeded = True
        self._with_codes.fill_(1)

    def _loss(self, *batch: Tensor) -> Float[Tensor, ""]:
        clean = self._clean(*batch)
        latents = self._encoded(clean)
        network: Any = self.network
        codes = network.quantize.embedding.weight
        chosen = F.embedding(nearest(latents.detach(), codes.detach()), codes).permute(0, 3, 1, 2)
        errors = F.mse_loss(chosen, latents.detach()) + COMMITMENT * F.mse_loss(chosen.detach(), latents)
        used = latents + self._with_codes * (chosen - latents).detach()
        return F.l1_loss(self._decoded(used), clean) + self._with_codes * errors


def nearest(latents: Float[Tensor, "n c h w"], codes: Float[Tensor, "k c"]) -> Int[Tensor, "n h w"]:
    """The code nearest to each latent."""
    rows = _as_rows(latents)
    closeness = torch.addmm(-0.5 * codes.square().sum(1), rows, codes.T)
    return closeness.argmax(1).reshape(latents.shape[0], *latents.shape[2:])


def _as_rows(latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "m c"]:
    return latents.permute(0, 2, 3, 1).flatten(0, 2)


@torch.no_grad()
def encode(
    autoencoder: Any, images: UInt8[Tensor, "n c h w"], batch_size: int = 1000
) -> Float[Tensor, "n d i j"]:
    """Latents of images in [0, 255], before they are snapped to codes, in fp16."""
    parts = [autoencoder.quant_conv(autoencoder.encoder(as_clean(part))) for part in images.split(batch_size)]
    return torch.cat([part.half() for part in parts])


@torch.no_grad()
def decode(
    autoencoder: Any, latents: Float[Tensor, "n d i j"], batch_size: int = 1000
) -> UInt8[Tensor, "n c h w"]:
    """Images in [0, 255] of latents, which are snapped to codes first."""
    codes = autoencoder.quantize.embedding.weight
    parts = []
    for part in latents.float().split(batch_size):
        snapped = codes[nearest(part, codes)].permute(0, 3, 1, 2)
        parts.append(as_images(autoencoder.decoder(autoencoder.post_quant_conv(snapped))))
    return torch.cat(parts)


@torch.no_grad()
def settle(autoencoder: Any, latents: Float[Tensor, "n d i j"]) -> None:
    """Moves and scales an autoencoder's latents, each channel to the mean 0 and all to the variance 1.

    Images stay as they are: the last layer before the latents, the codes, and the first layer after them take
    the change up. One scale is for all channels, so that nearest codes stay nearest.

    Args:
        autoencoder: changed in place.
        latents: of many images.
    """
    values = latents.float()
    mean = values.mean((0, 2, 3))
    scale = (values - mean[:, None, None]).square().mean().sqrt()
    before, after = autoencoder.quant_conv, autoencoder.post_quant_conv
    before.weight.div_(scale)
    before.bias.sub_(mean).div_(scale)
    autoencoder.quantize.embedding.weight.sub_(mean).div_(scale)
    after.bias.add_(after.weight.flatten(1) @ mean)
    after.weight.mul_(scale)


def about(autoencoder: Any, latents: Float[Tensor, "n d i j"]) -> str:
    """How many codes are the nearest one of a latent."""
    codes = autoencoder.quantize.embedding.weight
    return f"{len(nearest(latents.float(), codes).unique())} of {len(codes)} codes in use by them, "
