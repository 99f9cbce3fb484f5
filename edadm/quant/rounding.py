"""AdaRound's rounding variables (arXiv 2004.10568, eq. 22-23; method, 3.5)."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

ZETA, GAMMA = 1.1, -0.1


def soft_rounding(alpha: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """The soft rounding h(alpha) in [0, 1]: the learned fraction that is added to the rounded-down code."""
    return torch.sigmoid(alpha).mul(ZETA - GAMMA).add(GAMMA).clamp(0, 1)


def initial_alpha(ratio: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """The alpha at which soft rounding leaves `ratio` = weight / scale where it is."""
    fraction = ratio - ratio.floor()
    return -torch.log((ZETA - GAMMA) / (fraction - GAMMA) - 1)


class _SoftCodes(torch.autograd.Function):
    """Soft codes, `clamp(base + soft_rounding(alpha))`, with their gradient in few passes over memory."""

    @staticmethod
    def forward(ctx: Any, base: Tensor, alpha: Tensor, top: int) -> Tensor:
        sigmoid = torch.sigmoid(alpha)
        ctx.save_for_backward(base, sigmoid)
        ctx.top = top
        return sigmoid.mul(ZETA - GAMMA).add_(GAMMA).clamp_(0, 1).add_(base).clamp_(0, top)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        base, sigmoid = ctx.saved_tensors
        fraction = sigmoid.mul(ZETA - GAMMA).add_(GAMMA)
        free = (fraction == fraction.clamp(0, 1)).logical_and_(base >= 0).logical_and_(base < ctx.top)
        slope = (1 - sigmoid).mul_(sigmoid).mul_(ZETA - GAMMA)
        return None, slope.mul_(free).mul_(gradients[0]), None


def soft_codes(base: Float[Tensor, "*s"], alpha: Float[Tensor, "*s"], bits: int) -> Float[Tensor, "*s"]:
    """Codes with learned fractions, in [0, 2^bits - 1]; differentiable in alpha where the grid does not clip.

    Args:
        base: the rounded-down codes, `floor(weight / scale) + zero_point`.
        alpha: rounding variables.
        bits: width of the grid.
    """
    return _SoftCodes.apply(base, alpha, 2**bits - 1)


def hard_codes(base: Float[Tensor, "*s"], alpha: Float[Tensor, "*s"], bits: int) -> Float[Tensor, "*s"]:
    """Integer codes: up where alpha >= 0. At `initial_alpha` this is round-to-nearest, halves up."""
    return (base + (alpha >= 0)).clamp(0, 2**bits - 1)
