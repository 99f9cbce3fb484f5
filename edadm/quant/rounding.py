"""AdaRound's rounding variables (arXiv 2004.10568, eq. 22-23; method, 3.5)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

ZETA, GAMMA = 1.1, -0.1


def soft_rounding(alpha: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """h(alpha) in [0, 1]: the learned fraction that is added to the rounded-down code."""
    return torch.sigmoid(alpha).mul(ZETA - GAMMA).add(GAMMA).clamp(0, 1)


def initial_alpha(ratio: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """The alpha at which soft rounding leaves `ratio` = weight / scale where it is."""
    fraction = ratio - ratio.floor()
    return -torch.log((ZETA - GAMMA) / (fraction - GAMMA) - 1)


def soft_codes(ratio: Float[Tensor, "*s"], alpha: Float[Tensor, "*s"], zero_point: Float[Tensor, "..."], bits: int) -> Float[Tensor, "*s"]:
    """Codes with learned fractions, in [0, 2^bits - 1]; differentiable in alpha."""
    return (ratio.floor() + soft_rounding(alpha) + zero_point).clamp(0, 2**bits - 1)


def hard_codes(ratio: Float[Tensor, "*s"], alpha: Float[Tensor, "*s"], zero_point: Float[Tensor, "..."], bits: int) -> Float[Tensor, "*s"]:
    """Integer codes: up where alpha >= 0. At `initial_alpha` this is round-to-nearest, halves up."""
    return (ratio.floor() + (alpha >= 0) + zero_point).clamp(0, 2**bits - 1)
