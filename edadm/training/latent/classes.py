"""What a U-Net is told in training, and shows afterwards: classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from edadm.conditions.classes import ClassEmbedding, make
from edadm.config.schema import Model
from edadm.training.files import State
from edadm.training.latent.told import Asked


class ToldClasses:
    """Classes, whose embeddings are trained beside the U-Net.

    Args:
        model: the preset.
        images: of the training set; only a look at them.
        labels: the class of each.
        names: of classes.
    """

    def __init__(
        self,
        model: Model,
        images: UInt8[Tensor, "n 3 h w"],
        labels: Int[Tensor, " n"],
        names: Sequence[str],
    ):
        channels = model.architecture.context_channels
        assert model.conditioning is not None and channels is not None
        self._settings = model.conditioning
        self.network = ClassEmbedding(self._settings.classes, channels)
        self.numbers = labels[:, None]
        self.classes = self.nothing = self._settings.classes

    def weights(self, trained: State) -> State:
        """The tensors of a file's `cond_stage_model`."""
        return trained

    def asked(self, images: int) -> Asked:
        """Every class equally often, in shuffled order."""
        each = -(-images // self._settings.classes)
        settings = self._settings.model_copy(update={"images_per_class": each})
        condition = make(self.network, settings, images)
        return Asked(condition, torch.tensor(condition.labels[:images]))
