"""What a network is told about image i: rows of its inputs, by image index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from edadm.conditions import classes, image, refiner, sd3, sdxl, t5, text
from edadm.networks.settings.parts import Conditioning

CONDITIONS: dict[str, Any] = {  # modules, by kind of condition
    "classes": classes,
    "text": text,
    "sd3": sd3,
    "sdxl": sdxl,
    "sdxl_refiner": refiner,
    "inpainting": image,
    "instruct_pix2pix": image,
    "t5": t5,
}


@runtime_checkable
class Condition(Protocol):
    """Rows by image index of everything that a network is told, by name of its input."""

    def rows(self, indices: Sequence[int]) -> Mapping[str, Tensor]:
        """What the network is told of each image, a row an image, such as `context` (n, tokens, channels)."""

    def unconditional(self) -> Mapping[str, Tensor]:
        """One row that says nothing, of each of these inputs but those that guidance leaves as they are."""


def build_condition_network(
    settings: Conditioning, context_channels: int, autoencoder: nn.Module | None = None, side: int = 0
) -> nn.Module:
    """The networks behind a condition, such as a class embedding or a text encoder, randomly initialised.

    Args:
        settings: of the condition.
        context_channels: of one token of the network's context.
        autoencoder: of the network's latents, for conditions that encode images.
        side: height and width of these latents.
    """
    module = CONDITIONS[settings.kind]
    if autoencoder is not None and settings.encodes_images:
        both: nn.Module = module.build_both(settings, context_channels, autoencoder, side)
        return both
    network: nn.Module = module.build(settings, context_channels)
    return network


def make_condition(network: nn.Module, settings: Conditioning, images: int) -> Condition:
    """The condition of the images 0 .. images - 1.

    Args:
        network: from `build_condition_network`, with weights.
        settings: of the condition.
        images: how many there are.

    Raises:
        EdadmError: the label list or the prompts do not last for so many images.
    """
    condition: Condition = CONDITIONS[settings.kind].make(network, settings, images)
    return condition
