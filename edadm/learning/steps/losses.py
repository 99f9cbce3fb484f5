"""Reconstruction errors (method, 4.3) and AdaRound's regulariser."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from edadm.quant.rounding import soft_rounding


def squared_error(a: Float[Tensor, "n c *rest"], b: Float[Tensor, "n c *rest"]) -> Float[Tensor, ""]:
    """Squared differences summed over axis 1, averaged over the others."""
    return (a - b).square().sum(1).mean()


def indecision(alphas: Sequence[Tensor], exponent: Float[Tensor, ""]) -> Float[Tensor, ""]:
    """AdaRound's regulariser: how far soft rounding is from 0 and 1, summed over weights.

    1 - |2 h(alpha) - 1|^exponent (arXiv 2004.10568, eq. 24).
    """
    distances = [1 - (2 * soft_rounding(alpha) - 1).abs().pow(exponent) for alpha in alphas]
    return torch.stack([distance.sum() for distance in distances]).sum()
