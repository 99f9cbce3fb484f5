"""What U-Nets are told while they are trained, whatever it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Int
from torch import Tensor, nn

from edadm.conditions.condition import Condition
from edadm.training.files import State


@dataclass(frozen=True)
class Asked:
    """What images are asked for, to see whether they show it.

    Attributes:
        condition: tells the network.
        labels: the class of each image.
        colours: the colour of each, where one is told.
    """

    condition: Condition
    labels: Int[Tensor, " n"]
    colours: Int[Tensor, " n"] | None = None


@runtime_checkable
class Told(Protocol):
    """Contexts by their number, and those that belong to the training set's images."""

    network: nn.Module  # from numbers to contexts; its parameters are trained beside the U-Net
    numbers: Int[Tensor, "n k"]  # of the contexts that belong to each image, of which a step draws one
    classes: int  # that images may be of
    nothing: int  # number of the context that says nothing

    def weights(self, trained: State) -> State:
        """The tensors of a file's `cond_stage_model`, from the averaged parameters of `network`."""

    def asked(self, images: int) -> Asked:
        """What so many images are asked for afterwards."""
