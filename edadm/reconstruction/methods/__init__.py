"""Reconstruction methods by name: a file and a row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edadm.reconstruction.chain import Task
from edadm.reconstruction.methods.block import block
from edadm.reconstruction.methods.fbr import fbr
from edadm.reconstruction.methods.fbr_float_inputs import fbr_float_inputs
from edadm.reconstruction.methods.layer import layer
from edadm.reconstruction.methods.none import none


@dataclass(frozen=True)
class Method:
    """How a method learns, and whether its units are layers instead of blocks."""

    learn: Callable[[Task], None]
    by_layer: bool = False


METHODS = {
    "none": Method(none),
    "layer": Method(layer, by_layer=True),
    "block": Method(block),
    "fbr": Method(fbr),
    "fbr_float_inputs": Method(fbr_float_inputs),
}
