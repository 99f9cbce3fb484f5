"""What trainings have in common."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from edadm.training.trainer import Trainer, Training, train


class Slow(Trainer):
    """A step takes a second, the first one 20 more for compilation."""

    now = 0.0

    def _batch(self) -> tuple[Tensor, ...]:
        self.now += 1 + 20 * (self.step == 0)
        return (torch.ones(2, 3),)

    def _loss(self, *batch: Tensor) -> Tensor:
        return self.network(batch[0]).square().mean()


@pytest.mark.parametrize(
    ("minutes", "steps"),
    [
        (2.0, 100),  # 20 of 120 s are compilation
        (10.0, 580),
        (0.5, 32),  # over before a rate is known: 20 steps are made, and the rate falls over 12 more
    ],
)
def test_the_number_of_steps_fits_into_minutes(
    minutes: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Slow(nn.Linear(3, 1), Training(warmup=1), torch.device("cpu"))
    monkeypatch.setattr(time, "monotonic", lambda: trainer.now)
    said: list[str] = []
    seen: list[int] = []
    loss = train(trainer, minutes, said.append, every=10, on_step=seen.append)
    assert trainer.step == trainer.settings.steps == steps
    assert seen == list(range(1, steps + 1))
    assert said[0] == f"step 10 of 100000 loss {float(said[0].split()[5]):.5f} steps/s 0.0 after 30 s"
    assert f"step {steps} of {steps} loss {loss:.5f} steps/s 1.0 after {steps + 20} s" == said[-1]


def test_the_number_of_steps_is_the_settings_without_minutes() -> None:
    trainer = Slow(nn.Linear(3, 1), Training(steps=25, warmup=1, learning_rate=0.1), torch.device("cpu"))
    first = trainer._loss(torch.ones(2, 3)).item()
    assert train(trainer, None, lambda line: None, every=10) < first
    assert trainer.step == 25
