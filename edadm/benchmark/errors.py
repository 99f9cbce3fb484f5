"""How far a quantized network's predictions lie from full precision's, timestep by timestep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

Predict = Callable[[Tensor, Tensor], Tensor]


def prediction_errors(
    full: Predict, rivals: Mapping[str, Predict], states: Iterable[tuple[Tensor, int | float]]
) -> list[dict[str, Any]]:
    """Errors of every rival at every step, in the order of the states.

    Args:
        full: predictions (n, c, h, w) of full precision, of states and timesteps (n,).
        rivals: those of quantized networks by name.
        states: of one step after the other, (n, c, h, w) with n of at least 2, and its timestep.
    """
    found = []
    for x, timestep in states:
        t = torch.full((len(x),), timestep, device=x.device)
        with torch.no_grad():
            expected = full(x, t).double()
            apart = {name: rival(x, t).double() - expected for name, rival in rivals.items()}
        power = expected.square().mean()
        shares = {name: bias_and_variance(error, power) for name, error in apart.items()}
        found.append({"timestep": timestep, "errors": shares})
    return found


def bias_and_variance(error: Float[Tensor, "n ..."], power: Float[Tensor, ""]) -> dict[str, float]:
    """The mean square of errors of n images in shares of `power`: together, and in two parts.

    `variance` differs from image to image; `bias` is the square of what all images have in common, element by
    element, which averages out in no image and adds up over steps. It is unbiased itself, and so may come out
    a little below 0.
    """
    whole, variance = error.square().mean() / power, error.var(0).mean() / power
    return {"error": whole.item(), "bias": (whole - variance).item(), "variance": variance.item()}
