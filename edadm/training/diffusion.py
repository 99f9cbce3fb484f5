"""Training of the bundled DDPM (arXiv 2006.11239, algorithm 1)."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from edadm.networks.families import family_of
from edadm.networks.family import Network
from edadm.networks.inputs import Rows
from edadm.training.trainer import Trainer, Training


class DiffusionTrainer(Trainer):
    """Minimises the squared error of eps over uniform t, flips and noise.

    Args:
        unet: trained in place, on the device of `images`.
        images: the whole data set, uint8 in [0, 255].
        alphas_cumprod: alpha-bar of every timestep.
        settings: batch size, learning rate and so on.
        compiled: see `Trainer`.
    """

    def __init__(
        self,
        unet: Network,
        images: UInt8[Tensor, "n c h w"],
        alphas_cumprod: Float[Tensor, " timesteps"],
        settings: Training,
        compiled: bool = False,
    ):
        super().__init__(unet, settings, images.device, compiled)
        self._family = family_of(unet)  # which the compiler could not look up
        self._images = images
        self._signal = alphas_cumprod.sqrt().float().to(self.device)
        self._noise = (1 - alphas_cumprod).sqrt().float().to(self.device)

    def _batch(self) -> tuple[Tensor, ...]:
        images = self._images[self._integers(len(self._images))]
        flip, t = self._integers(2).bool(), self._integers(len(self._signal))
        return images, flip, t, torch.randn(images.shape, generator=self._generator, device=self.device)

    def _loss(self, *batch: Tensor) -> Float[Tensor, ""]:
        images, flip, t, eps = batch
        clean = images.float() / 127.5 - 1
        clean = torch.where(flip[:, None, None, None], clean.flip(3), clean)
        noisy = self._signal[t][:, None, None, None] * clean + self._noise[t][:, None, None, None] * eps
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            latents = noisy.contiguous(memory_format=torch.channels_last)
            predicted = self._family.call(self.network, Rows({"latents": latents, "timesteps": t}))
        return F.mse_loss(predicted.float(), eps)
