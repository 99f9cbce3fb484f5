"""How long one network evaluation takes, side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edadm.models.denoiser import network_inputs


def _seconds(unet: nn.Module, x: Float[Tensor, "n c h w"], context: Float[Tensor, "n k e"] | None) -> float:
    rows = {"latents": x, "timesteps": torch.full((len(x),), 500, device=x.device)}
    if context is not None:
        rows["context"] = context
    begin = time.perf_counter()
    unet(*network_inputs(rows))
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - begin


@torch.no_grad()
def step_latency(
    networks: Mapping[str, nn.Module],
    shape: tuple[int, ...],
    repeats: int = 7,
    context_shape: tuple[int, int] | None = None,
) -> dict[str, dict[str, Any]]:
    """Seconds per network evaluation of each network, all on the same random batch.

    Rounds of one evaluation each alternate between the networks, so that a busy machine slows all of them
    alike. The first round warms up and is not counted.

    Args:
        networks: by name, on one device.
        shape: (n, c, h, w) of the batch.
        repeats: counted rounds.
        context_shape: (tokens, channels) of the condition, for networks that take one.

    Returns:
        By name: `seconds` (median), `fastest`, `slowest`.
    """
    device = next(next(iter(networks.values())).parameters()).device
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(
        device, memory_format=torch.channels_last
    )
    context = None if context_shape is None else torch.zeros(shape[0], *context_shape, device=device)
    times: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(repeats + 1):
        for name, network in networks.items():
            times[name].append(_seconds(network, x, context))
    return {
        name: {
            "seconds": statistics.median(rounds[1:]),
            "fastest": min(rounds[1:]),
            "slowest": max(rounds[1:]),
        }
        for name, rounds in times.items()
    }
