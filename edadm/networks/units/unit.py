"""What is reconstructed at once: blocks, attentions, and the layers outside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["res_block", "attention", "transformer", "layer", "temporal"]
Exclude = Literal["last_registered", "true_last"]


@dataclass(frozen=True)
class Unit:
    """A part of a network that is learned at once, as one callable.

    Args:
        name: of its module.
        kind: of block, or `layer` for a layer that stands alone, or `temporal` for all layers that see
            nothing but the timestep, wherever they lie (`edadm.networks.units.temporal`).
        layers: full names of its convolutions and linear layers, in registration order; the last one has no
            error of its own.
        main_input: the argument that carries the main path, by position or name; what a quantizing network
            changes of it drops out element by element while learning.
        outputs: which of its outputs are learned, by position; one that returns a tensor has output 0.
        channel_axis: of its inner layers' outputs in the original network, 1 or -1 of the tensors here.
    """

    name: str
    kind: Kind
    layers: tuple[str, ...]
    main_input: int | str = 0
    outputs: tuple[int, ...] = (0,)
    channel_axis: int = 1

    @property
    def is_apart(self) -> bool:
        """Whether it is no module of the network, and so is not met on the way through it."""
        return self.kind == "temporal"
