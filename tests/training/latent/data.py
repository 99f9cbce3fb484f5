"""Tiny latent models, and pictures of two classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edadm.config.schema import Model
from edadm.networks.autoencoder import build_autoencoder
from edadm.training.trainer import Training

from ...networks.families import random_network, tiny

CLASSES, PROMPTS = tiny("ldm4_imagenet"), tiny("sd14_coco")
SETTINGS = Training(steps=30, batch_size=8, warmup=1, learning_rate=3e-3)
BRIEF = Training(steps=3, batch_size=4, warmup=1)


def pictures(side: int = 16) -> tuple[Tensor, Tensor]:
    """Two classes, told apart by the half that is light."""
    labels = torch.arange(16) % 2
    images = torch.randint(0, 60, (16, 3, side, side), generator=torch.Generator().manual_seed(0))
    images[labels == 1, :, : side // 2] += 150
    images[labels == 0, :, side // 2 :] += 150
    return images.to(torch.uint8), labels


def named_pictures(side: int = 16) -> tuple[Tensor, Tensor, list[str]]:
    """The same, with the names of their classes."""
    return *pictures(side), ["cat", "dog"]


def small(model: Model) -> Model:
    """The same, of images of the classifier's size."""
    assert model.autoencoder is not None
    return model.model_copy(
        update={"autoencoder": model.autoencoder.model_copy(update={"multipliers": (1, 1, 1)})}
    )


def autoencoder(model: Model) -> Any:
    """Its first stage, with random weights."""
    assert model.autoencoder is not None
    return random_network(build_autoencoder(model.autoencoder), 1)
