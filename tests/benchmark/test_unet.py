"""Times of network evaluations."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn

from edadm.benchmark.unet import step_latency
from edadm.networks.inputs import InputSpec


class Sleeper(nn.Module):
    """Takes a known time and counts its calls."""

    family = "diffusers"

    def __init__(self, seconds: float):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seconds, self.calls = seconds, []

    def forward(self, x: Tensor, t: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        self.calls.append((tuple(x.shape), x.sum().item(), t.tolist()))
        time.sleep(self.seconds)
        return (x,)


def test_networks_are_timed_in_turn_on_the_same_batch_with_one_round_to_warm_up() -> None:
    slow, fast = Sleeper(0.03), Sleeper(0.002)
    times = step_latency(
        {"slow": slow, "fast": fast}, InputSpec({"latents": (3, 4, 4), "timesteps": ()}), 2, repeats=3
    )
    assert len(slow.calls) == len(fast.calls) == 4
    assert slow.calls == fast.calls
    assert {call[0] for call in slow.calls} == {(2, 3, 4, 4)}
    assert times["slow"]["fastest"] >= 0.03
    for seconds in times.values():
        assert seconds["fastest"] <= seconds["seconds"] <= seconds["slowest"]
    assert times["fast"]["fastest"] < times["slow"]["fastest"]
