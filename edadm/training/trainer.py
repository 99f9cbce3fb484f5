"""What trainings have in common: steps, an average of the weights, and a state to go on from."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from edadm.artifacts import reading, writing


@dataclass(frozen=True)
class Training:
    """Settings of a `Trainer`.

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


def learning_rate(step: int, settings: Training) -> float:
    """The learning rate of `step` (0-based)."""
    warm = (step + 1) / max(settings.warmup, 1)
    left = (settings.steps - step) / max(settings.decay_share * settings.steps, 1)
    return settings.learning_rate * max(0.0, min(1.0, warm, left))


class Trainer(ABC):
    """Lowers the loss of a network over batches that are drawn at random, on one device.

    With an exponential average of the weights.

    Args:
        network: trained in place.
        settings: batch size, learning rate and so on.
        device: where the data lies.
        compiled: compile the loss with torch.compile (a GPU gains a factor of two to three).
    """

    def __init__(self, network: nn.Module, settings: Training, device: torch.device, compiled: bool = False):
        self.settings, self.device = settings, device
        self.network = network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        self.average = {name: p.detach().clone() for name, p in network.named_parameters()}
        self.optimizer = torch.optim.AdamW(
            network.parameters(),
            settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=device.type == "cuda",
        )
        self.step = 0
        self._generator = torch.Generator(device).manual_seed(settings.seed)
        self._loss_of: Callable[..., Tensor] = (
            torch.compile(self._loss, mode="reduce-overhead") if compiled else self._loss
        )

    @abstractmethod
    def _batch(self) -> tuple[Tensor, ...]:
        """What the loss of the next step is of, drawn at random."""

    @abstractmethod
    def _loss(self, *batch: Tensor) -> Float[Tensor, ""]:
        """The loss of a batch."""

    def _integers(self, high: int) -> Int[Tensor, " n"]:
        return torch.randint(high, (self.settings.batch_size,), generator=self._generator, device=self.device)

    def train_step(self) -> Float[Tensor, ""]:
        """One update of the weights and of their average; returns the loss of its batch, on the device."""
        batch = self._batch()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.step, self.settings)
        torch.compiler.cudagraph_mark_step_begin()
        loss = self._loss_of(*batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.gradient_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        decay = min(self.settings.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.network.parameters()), 1 - decay)
        return loss.detach().clone()

    def fit_into(self, steps: int) -> None:
        """Changes the number of steps, as long as the learning rate has not begun to fall."""
        if self.step < (1 - self.settings.decay_share) * min(steps, self.settings.steps):
            self.settings = replace(self.settings, steps=steps)

    def save(self, path: Path) -> None:
        """Everything needed to go on with the next step."""
        state = {
            "step": self.step,
            "network": self.network.state_dict(),
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
            self.network.load_state_dict(state["network"])
            self.average = state["average"]
            self.optimizer.load_state_dict(state["optimizer"])
            self._generator.set_state(state["generator"].cpu())


def train(
    trainer: Trainer,
    minutes: float | None,
    say: Callable[[str], None],
    every: int = 500,
    on_step: Callable[[int], None] = lambda step: None,
) -> float:
    """Makes the steps that are left.

    Args:
        trainer: goes on from its step.
        minutes: choose the number of steps so that this call takes so long, or as long as the learning rate
            needs to fall if most of it is over by then; None keeps the settings'.
        say: told losses and speed.
        every: so many steps.
        on_step: told each number of finished steps.

    Returns:
        The mean loss of the last steps.
    """
    losses: list[Tensor] = []
    begin, first, recent = time.monotonic(), None, float("nan")
    while trainer.step < trainer.settings.steps:
        losses.append(trainer.train_step())
        if trainer.step % every == 0 or trainer.step == trainer.settings.steps:
            recent, losses, now = torch.stack(losses).mean().item(), [], time.monotonic()
            first = first or (trainer.step, now)  # the steps before include compilation
            rate = (trainer.step - first[0]) / max(now - first[1], 1e-9)
            say(
                f"step {trainer.step} of {trainer.settings.steps} loss {recent:.5f} steps/s {rate:.1f} after "
                f"{now - begin:.0f} s"
            )
            if minutes and trainer.step > first[0]:
                fitting = first[0] + int(rate * (60 * minutes - (first[1] - begin)))
                least = int(trainer.step / (1 - trainer.settings.decay_share)) + 2
                trainer.fit_into(max(fitting, least))
        on_step(trainer.step)
    return recent
