"""Training of the U-Net of a latent diffusion model (arXiv 2112.10752), to be guided (2207.12598)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edadm.networks.families import family_of
from edadm.networks.family import Network
from edadm.networks.inputs import Rows
from edadm.training.latent.told import Told
from edadm.training.trainer import Trainer, Training

GAMMA = 5.0  # signal-to-noise ratio from which on a timestep counts less (arXiv 2303.09556)
UNCONDITIONAL = 0.1  # share of the images that are told nothing


class LatentTrainer(Trainer):
    """Minimises the squared error of eps over uniform t and noise, with min-SNR weights.

    Args:
        unet: trained in place, on the device of `latents`; as `unet` in `network`.
        told: with a network that is trained likewise, as `condition`.
        latents: of the whole data set, or of it and of its flipped images.
        alphas_cumprod: alpha-bar of every timestep.
        settings: batch size, learning rate and so on.
        compiled: see `Trainer`.
    """

    def __init__(
        self,
        unet: Network,
        told: Told,
        latents: Float[Tensor, "n c h w"],
        alphas_cumprod: Float[Tensor, " timesteps"],
        settings: Training,
        compiled: bool = False,
    ):
        begin_as_nothing(unet)
        network = nn.ModuleDict({"unet": unet, "condition": told.network})
        super().__init__(network, settings, latents.device, compiled)
        self._family = family_of(unet)  # which the compiler could not look up
        self._latents, self._nothing = latents, told.nothing
        self._numbers = told.numbers.repeat(len(latents) // len(told.numbers), 1)
        ratio = alphas_cumprod / (1 - alphas_cumprod)
        self._weights = (ratio.clamp(max=GAMMA) / ratio).float().to(self.device)
        self._signal = alphas_cumprod.sqrt().float().to(self.device)
        self._noise = (1 - alphas_cumprod).sqrt().float().to(self.device)

    def _batch(self) -> tuple[Tensor, ...]:
        rows, t = self._integers(len(self._latents)), self._integers(len(self._signal))
        latents = self._latents[rows].float()
        draws = torch.rand(len(rows), generator=self._generator, device=self.device)
        numbers = self._numbers[rows, self._integers(self._numbers.shape[1])]
        numbers = torch.where(draws < UNCONDITIONAL, self._nothing, numbers)
        return latents, numbers, t, torch.randn(latents.shape, generator=self._generator, device=self.device)

    def _loss(self, *batch: Tensor) -> Float[Tensor, ""]:
        latents, numbers, t, eps = batch
        noisy = self._signal[t][:, None, None, None] * latents + self._noise[t][:, None, None, None] * eps
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            context = self.network["condition"](numbers)
            noisy = noisy.contiguous(memory_format=torch.channels_last)
            rows = Rows({"latents": noisy, "timesteps": t, "context": context})
            predicted = self._family.call(self.network["unet"], rows)
        return (self._weights[t] * (predicted.float() - eps).square().mean((1, 2, 3))).mean()


@torch.no_grad()
def begin_as_nothing(unet: nn.Module) -> None:
    """Sets the last layer of every residual branch and of the network to zero, as CompVis' code does."""
    for name, module in unet.named_modules():
        if name == "conv_out" or name.endswith((".conv2", ".proj_out")):
            for parameter in module.parameters():
                parameter.zero_()
