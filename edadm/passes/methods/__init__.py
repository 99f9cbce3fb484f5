"""Reconstruction methods by name: a file and a row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edadm.learning.chain import Task
from edadm.passes.methods.block import block
from edadm.passes.methods.fbr import fbr
from edadm.passes.methods.fbr_float_inputs import fbr_float_inputs
from edadm.passes.methods.layer import layer
from edadm.passes.methods.none import none


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
