"""A class for each image, and its embedding."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edadm.conditions.order import shuffled
from edadm.errors import EdadmError
from edadm.networks.settings.parts import Conditioning


class ClassEmbedding(nn.Module):
    """One row for each class and a last one for none (CompVis' `ClassEmbedder` with 1001 classes)."""

    def __init__(self, classes: int, channels: int):
        super().__init__()
        self.embedding = nn.Embedding(classes + 1, channels)


class ClassCondition:
    """Image i has the i-th of a shuffled list in which every class stands equally often.

    Args:
        embedding: with weights.
        settings: classes, how often each stands in the list, and the seed of its order.
    """

    def __init__(self, embedding: ClassEmbedding, settings: Conditioning):
        self._embedding = embedding.embedding
        self.labels = labels_of(settings)
        self._none = settings.classes

    def _rows(self, labels: Sequence[int]) -> Float[Tensor, "n 1 channels"]:
        return self._embedding(torch.tensor(labels, dtype=torch.long, device=self._embedding.weight.device))[
            :, None
        ]

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
    if len(condition.labels) < images:
        raise EdadmError(
            f"{images} images exceed the {len(condition.labels)} labels; raise conditioning.images_per_class"
        )
    return condition
