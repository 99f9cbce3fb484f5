"""No reconstruction."""

from __future__ import annotations

from edadm.learning.chain import Task
from edadm.nn.insert import quantized_layers


def none(task: Task) -> None:
    """Rounds weights to nearest and leaves the searched ranges; nothing is learned."""
    for layer in quantized_layers(task.quantized_unet).values():
        layer.set_codes(layer.nearest_codes())
