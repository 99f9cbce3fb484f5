"""Rounding to nearest: no reconstruction."""

from __future__ import annotations

from edadm.learning.task import Task
from edadm.nn.insert import quantized_layers
from edadm.passes.base import Pass


def round_to_nearest(task: Task) -> None:
    """Rounds every weight to the nearest point of its grid and leaves the searched ranges."""
    for layer in quantized_layers(task.quantized_unet).values():
        layer.set_codes(layer.nearest_codes())


ROUND_TO_NEAREST = Pass(frozenset({"weights", "ranges"}), frozenset({"codes"}), run=round_to_nearest)
