"""Training of the bundled DDPM (arXiv 2006.11239, algorithm 1)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.artifacts import reading, writing
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows
from edadm.networks.unet.base import UNet


@dataclass(frozen=True)
class DiffusionTraining:
    """Settings of `DiffusionTrainer`.

    The learning rate warms up, stays, and falls linearly to zero over the last steps.
    """

    steps: int = 100_000
    batch_size: int = 512
    learning_rate: float = 1e-3
    warmup: int = 500
    decay_share: float = 0.35
    weight_decay: float = 0.0
    ema_decay: float = 0.9995
    gradient_norm: float = 1.0
    seed: int = 0


def learning_rate(step: int, settings: DiffusionTraining) -> float:
    """The learning rate of `step` (0-based)."""
    warm = (step + 1) / max(settings.warmup, 1)
    left = (settings.steps - step) / max(settings.decay_share * settings.steps, 1)
    return settings.learning_rate * max(0.0, min(1.0, warm, left))


class DiffusionTrainer:
    """Minimises the squared error of eps over uniform t, flips and noise.

    With an exponential average of the weights.

    Args:
        unet: trained in place, on the device of `images`.
        images: the whole data set, uint8 in [0, 255].
        alphas_cumprod: alpha-bar of every timestep.
        settings: batch size, learning rate and so on.
        compiled: compile the network with torch.compile (a GPU gains a factor of two to three).
    """

    def __init__(
        self,
        unet: UNet,
        images: UInt8[Tensor, "n c h w"],
        alphas_cumprod: Float[Tensor, " timesteps"],
        settings: DiffusionTraining,
        compiled: bool = False,
    ):
        self.settings = settings
        self.device = images.device
        self.unet = unet.to(self.device, memory_format=torch.channels_last).train()
        self.average = {name: p.detach().clone() for name, p in unet.named_parameters()}
        self.optimizer = torch.optim.AdamW(
            unet.parameters(),
            settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=self.device.type == "cuda",
        )
        self.step = 0
        self._images = images
        self._signal = alphas_cumprod.sqrt().float().to(self.device)
        self._noise = (1 - alphas_cumprod).sqrt().float().to(self.device)
        self._generator = torch.Generator(self.device).manual_seed(settings.seed)
        self._loss_of: Callable[..., Tensor] = (
            torch.compile(self._loss, mode="reduce-overhead") if compiled else self._loss
        )

    def _loss(
        self, images: UInt8[Tensor, "n c h w"], flip: Tensor, t: Tensor, eps: Float[Tensor, "n c h w"]
    ) -> Float[Tensor, ""]:
        clean = images.float() / 127.5 - 1
        clean = torch.where(flip[:, None, None, None], clean.flip(3), clean)
        noisy = self._signal[t][:, None, None, None] * clean + self._noise[t][:, None, None, None] * eps
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            latents = noisy.contiguous(memory_format=torch.channels_last)
            predicted = network_call(self.unet, Rows({"latents": latents, "timesteps": t}))
        return F.mse_loss(predicted.float(), eps)

    def _integers(self, high: int) -> Int[Tensor, " n"]:
        return torch.randint(high, (self.settings.batch_size,), generator=self._generator, device=self.device)

    def train_step(self) -> Float[Tensor, ""]:
        """One update of the weights and of their average; returns the loss of its batch, on the device."""
        batch = self._images[self._integers(len(self._images))]
        flip, t = self._integers(2).bool(), self._integers(len(self._signal))
        eps = torch.randn(batch.shape, generator=self._generator, device=self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.settings)
        torch.compiler.cudagraph_mark_step_begin()
        loss = self._loss_of(batch, flip, t, eps)
        loss.backward()
        nn.utils.clip_grad_norm_(self.unet.parameters(), self.settings.gradient_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.unet.parameters()), 1 - decay)
        return loss.detach().clone()

    def fit_into(self, steps: int) -> None:
        """Changes the number of steps, as long as the learning rate has not begun to fall."""
        if self.step < (1 - self.settings.decay_share) * min(steps, self.settings.steps):
            self.settings = replace(self.settings, steps=steps)

    def save(self, path: Path) -> None:
        """Everything needed to go on with the next step."""
        state = {
            "step": self.step,
            "unet": self.unet.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "generator": self._generator.get_state(),
        }
        with writing(path) as partial:
            torch.save(state, partial)

    def resume(self, path: Path) -> None:
        """Goes on from what `save` wrote.

        Raises:
            DamagedError: it cannot be read, or is of another training.
        """
        with reading(path, "remove it to begin anew", what="the state of this training"):
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.step = state["step"]
            self.unet.load_state_dict(state["unet"])
            self.average = state["average"]
            self.optimizer.load_state_dict(state["optimizer"])
            self._generator.set_state(state["generator"].cpu())
