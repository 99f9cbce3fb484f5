"""Training of the bundled DDPM."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edadm.config.schema import NoiseSchedule
from edadm.networks.build import build_network
from edadm.networks.settings.architecture import Architecture
from edadm.sampling.schedule import alphas_cumprod
from edadm.training.diffusion import DiffusionTrainer
from edadm.training.trainer import Training, learning_rate

SMALL = Architecture(
    image_size=8, channels=8, multipliers=(1,), blocks_per_level=1, attention_resolutions=(), norm_groups=4
)
SETTINGS = Training(steps=40, batch_size=4, warmup=5, seed=1)


def trainer(settings: Training = SETTINGS) -> DiffusionTrainer:
    torch.manual_seed(0)
    images = torch.randint(256, (16, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return DiffusionTrainer(build_network(SMALL), images, alphas_cumprod(NoiseSchedule()), settings)


def test_the_learning_rate_warms_up_stays_and_falls_to_nothing() -> None:
    settings = Training(steps=1000, warmup=10, learning_rate=0.5, decay_share=0.2)
    assert learning_rate(0, settings) == pytest.approx(0.05)
    assert learning_rate(10, settings) == learning_rate(799, settings) == 0.5
    assert learning_rate(900, settings) == pytest.approx(0.25)
    assert learning_rate(1000, settings) == 0


def test_training_lowers_the_loss_and_the_average_follows_the_weights() -> None:
    work = trainer(Training(steps=80, batch_size=16, warmup=5, learning_rate=3e-3, seed=1))
    before = {name: value.clone() for name, value in work.average.items()}
    losses = [work.train_step().item() for _ in range(60)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    current = dict(work.network.named_parameters())
    moved = [name for name in before if not torch.equal(before[name], work.average[name])]
    assert len(moved) > 0.9 * len(before)
    assert any(not torch.equal(work.average[name], current[name]) for name in moved)


def test_resumed_training_goes_on_exactly(tmp_path: Path) -> None:
    whole = trainer()
    losses = [whole.train_step().item() for _ in range(6)]
    first, second = trainer(), trainer()
    for _ in range(3):
        first.train_step()
    first.save(tmp_path / "state.pt")
    second.resume(tmp_path / "state.pt")
    assert second.step == 3
    assert [second.train_step().item() for _ in range(3)] == losses[3:]
    assert all(torch.equal(second.average[name], whole.average[name]) for name in whole.average)


def test_the_number_of_steps_can_change_until_the_rate_begins_to_fall() -> None:
    work = trainer()
    work.fit_into(100)
    assert work.settings.steps == 100
    work.step = 80
    work.fit_into(200)
    assert work.settings.steps == 100
