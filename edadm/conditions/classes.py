"""A class for each image, and its embedding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from edadm.conditions.order import shuffled
from edadm.errors import EdadmError
from edadm.networks.settings.parts import Conditioning


class ClassEmbedding(nn.Module):
    """One row for each class and a last one for none (CompVis' `ClassEmbedder` with 1001 classes)."""

    def __init__(self, classes: int, channels: int):
        super().__init__()
        self.embedding = nn.Embedding(classes + 1, channels)

    def forward(self, labels: Int[Tensor, " n"]) -> Float[Tensor, "n 1 channels"]:
        """The context of each class, as one token."""
        embedded: Tensor = self.embedding(labels)
        return embedded[:, None]


class LabelCondition:
    """Image i has the i-th of a shuffled list in which every class stands equally often.

    The network is told its number, which it embeds by itself.

    Args:
        settings: classes, how often each stands in the list, and the seed of its order.
        device: where rows are made.
    """

    def __init__(self, settings: Conditioning, device: torch.device | str = "cpu"):
        self.labels = labels_of(settings)
        self._none, self._device = settings.classes, device

    def rows(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The class of each image."""
        return {"labels": torch.tensor([[self.labels[index]] for index in indices], device=self._device)}

    def unconditional(self) -> dict[str, Tensor]:
        """The number behind those of all classes, which stands for none."""
        return {"labels": torch.tensor([[self._none]], device=self._device)}


class ClassCondition(LabelCondition):
    """The same, where the network attends to the class's embedding.

    Args:
        embedding: with weights.
        settings: as of `LabelCondition`.
    """

    def __init__(self, embedding: ClassEmbedding, settings: Conditioning):
        super().__init__(settings)
        self._embedding = embedding

    def _rows(self, labels: Sequence[int]) -> Float[Tensor, "n 1 channels"]:
        device = self._embedding.embedding.weight.device
        told: Tensor = self._embedding(torch.tensor(labels, dtype=torch.long, device=device))
        return told

    @torch.no_grad()
    def rows(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """The context of each image: the embedding of its class, as one token."""
        return {"context": self._rows([self.labels[index] for index in indices])}

    @torch.no_grad()
    def unconditional(self) -> dict[str, Tensor]:
        """The context without a condition: the embedding that stands for no class."""
        return {"context": self._rows([self._none])}


def labels_of(settings: Conditioning) -> list[int]:
    """The class of each image, for as many as there are."""
    classes = settings.only or tuple(range(settings.classes))
    order = shuffled(len(classes) * settings.images_per_class, settings.seed, "label")
    return [classes[place % len(classes)] for place in order]


def build(settings: Conditioning, context_channels: int) -> ClassEmbedding:
    """The class embedding, randomly initialised."""
    return ClassEmbedding(settings.classes, context_channels)


def make(network: ClassEmbedding, settings: Conditioning, images: int) -> ClassCondition:
    """The classes of the images 0 .. images - 1.

    Raises:
        EdadmError: the label list does not last for so many images.
    """
    condition = ClassCondition(network, settings)
    _refuse_few(condition, images)
    return condition


def make_labels(settings: Conditioning, images: int, device: torch.device) -> LabelCondition:
    """The classes of the images 0 .. images - 1, for a network that embeds them by itself.

    Raises:
        EdadmError: the label list does not last for so many images.
    """
    condition = LabelCondition(settings, device)
    _refuse_few(condition, images)
    return condition


def _refuse_few(condition: LabelCondition, images: int) -> None:
    if len(condition.labels) < images:
        raise EdadmError(
            f"{images} images exceed the {len(condition.labels)} labels; raise conditioning.images_per_class"
        )
