"""What a CPU gains from integers: the same networks in other arithmetic, and where the time goes."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from edadm.benchmark.unet import rows_to_time
from edadm.config.backends import INTEGER, backend_names
from edadm.deploy.backends.base import lower
from edadm.networks.families import family_of, network_call
from edadm.networks.inputs import InputSpec, Rows
from edadm.nn.insert import quantized_layers

HALF = "bf16"

_GROUPS = {
    "convolution and linear": ("convolution", "conv2d", "addmm", "linear", "mkldnn"),
    "attention products": ("bmm", "matmul"),
    "normalisation": ("norm",),
    "activation": ("silu", "gelu", "softmax"),
    "quantization": ("round", "clamp", "div"),
    "copies": ("copy", "cat", "to_", "contiguous", "clone"),
}


class _Half(nn.Module):
    """A float network with bf16 weights and arithmetic, and fp32 inputs and outputs."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet, self.family = copy.deepcopy(unet), family_of(unet).name
        for parameter in self.unet.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)

    def forward(self, *inputs: Tensor, return_dict: bool = False) -> tuple[Tensor]:
        halved = (given.bfloat16() if given.is_floating_point() else given for given in inputs)
        return (self.unet(*halved, return_dict=False)[0].float(),)


def cpu_rivals(networks: Mapping[str, Any], backends: Iterable[str] = (INTEGER,)) -> dict[str, nn.Module]:
    """More networks to time beside these: `NAME/BACKEND` of quantized ones, `NAME/bf16` of float ones."""
    rivals: dict[str, nn.Module] = {}
    for name, network in networks.items():
        if quantized_layers(network):
            rivals |= {f"{name}/{backend}": lower(network, backend=backend) for backend in backends}
        else:
            rivals[f"{name}/{HALF}"] = _Half(network)
    return rivals


@torch.no_grad()
def shares_of_time(network: nn.Module, inputs: InputSpec, batch: int) -> dict[str, float]:
    """The share of the time of one evaluation that each kind of operation takes, the largest first.

    Shares add up to 1.

    Args:
        network: on the CPU, not compiled.
        inputs: that it takes.
        batch: rows of the batch.
    """
    rows = _spread(inputs, batch)
    network_call(network, rows)
    with _Clock() as clock:
        network_call(network, rows)
    whole = sum(clock.totals.values())
    return {name: total / whole for name, total in sorted(clock.totals.items(), key=lambda entry: -entry[1])}


class _Clock(TorchDispatchMode):
    """Seconds per kind of operation.

    Not by torch's profiler, which writes to the terminal where there is no GPU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.totals: dict[str, float] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        begin = time.perf_counter()
        result = func(*args, **(kwargs or {}))
        group = _group(str(func))
        self.totals[group] = self.totals.get(group, 0.0) + time.perf_counter() - begin
        return result


@torch.no_grad()
def parity(simulated: nn.Module, rival: nn.Module, inputs: InputSpec, batch: int) -> dict[str, float]:
    """How far one prediction of a backend is from the simulated one, as `mean`, `max` and `spread`.

    The first two are of absolute differences, the last is the simulated prediction's standard deviation.
    Sums of integers are exact, those of simulation are rounded; where that turns a code into its neighbour,
    all that follows moves.
    """
    rows = _spread(inputs, batch)
    reference = network_call(simulated, rows)
    difference = (network_call(rival, rows) - reference).abs()
    return {
        "mean": difference.mean().item(),
        "max": difference.max().item(),
        "spread": reference.std().item(),
    }


def slower_arithmetic(variants: Mapping[str, Mapping[str, Any]], reference: str = "fp32") -> Iterator[str]:
    """A sentence about each arithmetic that is slower than fp32 full precision here, by median times.

    Args:
        variants: of each timed network, what `step_latency` says; under `bf16` or the name of a backend the
            same of its rival.
        reference: which of them is full precision.
    """
    if reference not in variants:
        return
    least, processor = variants[reference]["seconds"], torch.backends.cpu.get_cpu_capability()
    for name, found in variants.items():
        for arithmetic in (HALF, *backend_names()):
            ratio = found[arithmetic]["seconds"] / least if arithmetic in found else 0.0
            if ratio > 1:
                yield (
                    f"{name} with {arithmetic} takes {ratio:.2f} times as long as {reference} with fp32 "
                    f"on this processor ({processor}): it saves memory here, not time"
                )


def _spread(inputs: InputSpec, batch: int) -> Rows:
    """A random batch, its timesteps spread over all of them."""
    timesteps = torch.linspace(0, 999, batch).long()
    return Rows({**rows_to_time(inputs, batch).tensors, "timesteps": timesteps})


def _group(operation: str) -> str:
    return next(
        (name for name, parts in _GROUPS.items() if any(part in operation for part in parts)), "other"
    )
