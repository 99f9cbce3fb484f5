"""Reconstruction errors (method, 4.3)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def squared_error(a: Float[Tensor, "n c *rest"], b: Float[Tensor, "n c *rest"]) -> Float[Tensor, ""]:
    """Squared differences summed over axis 1, averaged over the others."""
    return (a - b).square().sum(1).mean()


def reconstruction_error(
    output: Tensor, target: Tensor, layer_outputs: list[Tensor], layer_targets: list[Tensor], layer_weight: float
) -> Float[Tensor, ""]:
    """FBR's objective: the unit's error plus gamma times the sum of its inner layers' errors (EDA-DM, FBR).

    Args:
        output: the quantized unit's output.
        target: the float unit's output.
        layer_outputs: outputs of the quantized unit's inner layers.
        layer_targets: outputs of the float unit's inner layers.
        layer_weight: gamma, at least 0.
    """
    error = squared_error(output, target)
    if layer_weight == 0:
        return error
    inner = [squared_error(a, b) for a, b in zip(layer_outputs, layer_targets, strict=True)]
    return error + layer_weight * sum(inner)
