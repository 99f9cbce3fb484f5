"""No reconstruction."""

from __future__ import annotations

from edadm.nn.surgery import quantized_layers
from edadm.reconstruction.chain import Task


def none(task: Task) -> None:
    """Rounds weights to nearest and leaves the searched ranges; nothing is learned."""
    for layer in quantized_layers(task.quantized_unet).values():
        layer.set_codes(layer.nearest_codes())
