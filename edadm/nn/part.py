"""Layers as parts of a quantized network, which mean something in it alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from edadm.errors import EdadmError


class Part(nn.Module):
    """A layer whose tensors stand for a weight, which another network's layer cannot take for its own."""

    def state_dict(self, *args: Any, destination: Any = None, **named: Any) -> Any:
        """The layer's tensors as part of the state of its network.

        Raises:
            EdadmError: they are asked for alone, as where a ControlNet begins with a network's weights.
        """
        if destination is None and not args:
            raise EdadmError(
                "a layer of a quantized network has no weights for another network, such as a ControlNet "
                "that is made from it; make that from the network in full precision, or ask the whole "
                "network for its state"
            )
        return super().state_dict(*args, destination=destination, **named)


def refuse_other_channels(x: Tensor, axis: int, channels: int) -> None:
    """Refuses inputs of another width than a layer has.

    Raises:
        EdadmError: names both.
    """
    if x.shape[axis] != channels:
        raise EdadmError(
            f"a layer of this network takes {channels} channels and was given {x.shape[axis]}; look at the "
            "channels of the latents and the width of the context"
        )
