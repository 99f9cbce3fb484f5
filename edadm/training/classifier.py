"""Training of the bundled feature extractor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from edadm.networks.classifier import CifarClassifier


@dataclass(frozen=True)
class ClassifierTraining:
    """Settings of `train_classifier`.

    `epochs` passes over the data, one-cycle learning rate up to `learning_rate`.
    """

    epochs: int = 60
    batch_size: int = 512
    learning_rate: float = 0.4
    weight_decay: float = 5e-4
    label_smoothing: float = 0.1
    crop_padding: int = 4
    cutout: int = 8
    seed: int = 0


def augment(
    images: UInt8[Tensor, "n 3 h w"], padding: int, cutout: int, generator: torch.Generator
) -> UInt8[Tensor, "n 3 h w"]:
    """Augments images: horizontal flip, crop of the reflect-padded image, one grey square.

    The square has `cutout` pixels a side.
    """
    n, _, height, width = images.shape
    device = images.device

    def integers(high: int) -> Int[Tensor, "n 1"]:
        return torch.randint(high, (n, 1), generator=generator, device=device)

    flip = integers(2).bool()
    padded = F.pad(images.float(), (padding,) * 4, mode="reflect").to(torch.uint8)
    rows = integers(2 * padding + 1) + torch.arange(height, device=device)
    columns = integers(2 * padding + 1) + torch.arange(width, device=device)
    columns = torch.where(flip, columns.flip(1), columns)
    batch = torch.arange(n, device=device)[:, None, None]
    cropped = padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]]
    top, left = integers(height) - cutout // 2, integers(width) - cutout // 2
    inside_rows = (torch.arange(height, device=device) - top).clamp(-1, cutout) % (cutout + 1)
    inside_columns = (torch.arange(width, device=device) - left).clamp(-1, cutout) % (cutout + 1)
    hidden = (inside_rows < cutout)[:, :, None] & (inside_columns < cutout)[:, None, :]
    return cropped.masked_fill(hidden[..., None], 128).permute(0, 3, 1, 2)


def train_classifier(
    model: CifarClassifier,
    images: UInt8[Tensor, "n 3 h w"],
    labels: Int[Tensor, " n"],
    settings: ClassifierTraining,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> None:
    """Fits `model` in place by SGD with Nesterov momentum.

    `images` and `labels` lie on the model's device.
    """
    device = images.device
    generator = torch.Generator(device).manual_seed(settings.seed)
    batches = len(images) // settings.batch_size
    optimizer = torch.optim.SGD(
        model.parameters(),
        settings.learning_rate,
        momentum=0.9,
        weight_decay=settings.weight_decay,
        nesterov=True,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.learning_rate, settings.epochs * batches, pct_start=0.2
    )
    model.train()
    for epoch in range(settings.epochs):
        order = torch.randperm(len(images), generator=generator, device=device)
        losses: list[Float[Tensor, ""]] = []
        for rows in order[: batches * settings.batch_size].split(settings.batch_size):
            inputs = augment(images[rows], settings.crop_padding, settings.cutout, generator)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
                loss = F.cross_entropy(model(inputs), labels[rows], label_smoothing=settings.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        on_epoch(epoch, torch.stack(losses).mean().item())
    model.eval()


@torch.no_grad()
def accuracy(
    model: CifarClassifier,
    images: UInt8[Tensor, "n 3 h w"],
    labels: Int[Tensor, " n"],
    batch_size: int = 1000,
) -> float:
    """Share of images whose class is named right, in [0, 1]."""
    hits = [
        (model(x).argmax(1) == y).sum()
        for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True)
    ]
    return torch.stack(hits).sum().item() / len(images)
