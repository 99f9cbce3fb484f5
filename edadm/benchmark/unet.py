"""How long one network evaluation takes, side by side."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from edadm.networks.families import network_call
from edadm.networks.inputs import InputSpec, Rows


def rows_to_time(inputs: InputSpec, rows: int, device: torch.device | str = "cpu") -> Rows:
    """The same random latents on any device, channels last, at timestep 500; what else there is is zero."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randn(rows, *inputs.shapes["latents"], generator=generator)
    latents = drawn.to(device, memory_format=torch.channels_last)
    timesteps = torch.full((rows,), 500, device=device)
    given = inputs.zeros(rows, device).tensors
    return Rows({**given, "latents": latents, "timesteps": timesteps})


def _seconds(network: nn.Module, rows: Rows) -> float:
    begin = time.perf_counter()
    network_call(network, rows)
    if rows.device.type == "cuda":
        torch.cuda.synchronize(rows.device)
    return time.perf_counter() - begin


@torch.no_grad()
def step_latency(
    networks: Mapping[str, nn.Module],
    inputs: InputSpec,
    batch: int,
    repeats: int = 7,
) -> dict[str, dict[str, Any]]:
    """Seconds per network evaluation of each network, all on the same random batch.

    Rounds of one evaluation each alternate between the networks, so that a busy machine slows all of them
    alike. The first round warms up and is not counted.

    Args:
        networks: by name, on one device.
        inputs: that they take.
        batch: rows of the batch.
        repeats: counted rounds.

    Returns:
        By name: `seconds` (median), `fastest`, `slowest`.
    """
    device = next(next(iter(networks.values())).parameters()).device
    rows = rows_to_time(inputs, batch, device)
    times: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(repeats + 1):
        for name, network in networks.items():
            times[name].append(_seconds(network, rows))
    return {
        name: {
            "seconds": statistics.median(rounds[1:]),
            "fastest": min(rounds[1:]),
            "slowest": max(rounds[1:]),
        }
        for name, rounds in times.items()
    }
