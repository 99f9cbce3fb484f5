"""A network evaluated with integers beside the same network in floating point, all compiled, on one GPU in one run."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edadm.config.schema import Bits, Model
from edadm.deploy.checkpoint import quantized_copy
from edadm.deploy.cuda import fused_attention, lower_for_cuda
from edadm.models.random_weights import random_unet
from edadm.models.unet import UNet
from edadm.nn.surgery import activation_quantizers, disabled, quantized_layers
from edadm.planning.network import network_rows
from edadm.quant.affine import scale_and_zero_point
from edadm.reconstruction.observe import cover_weights

Inputs = tuple[Tensor, ...]
FLOATS = ("fp32 eager", "tf32 compiled", "bf16 compiled")


@torch.no_grad()
def quantized_by_magnitude(unet: UNet, bits: Bits, inputs: Inputs) -> UNet:
    """A quantized copy whose grids reach to the largest magnitudes, of weights and of what `inputs` lead to: for timing only."""
    quantized = quantized_copy(unet, bits)
    for layer in quantized_layers(quantized).values():
        cover_weights(layer)
        layer.set_codes(layer.nearest_codes())
    with _magnitudes(quantized) as largest, disabled(quantized):
        quantized(*inputs, return_dict=False)
    for name, quantizer in activation_quantizers(quantized).items():
        if name in largest:
            quantizer.set_grid(*scale_and_zero_point(-largest[name], largest[name], quantizer.bits))
    return quantized


@contextmanager
def _magnitudes(network: nn.Module) -> Iterator[dict[str, Tensor]]:
    """The largest magnitude of what each quantizer of activations sees, per segment."""
    largest: dict[str, Tensor] = {}
    handles = []
    for name, quantizer in activation_quantizers(network).items():

        def record(module: Any, arguments: tuple[Tensor, ...], name: str = name) -> None:
            x = arguments[0]
            parts = x.split(module.segments, 1) if len(module.segments) > 1 else (x,)
            largest[name] = torch.stack([part.abs().max() for part in parts])

        handles.append(quantizer.register_forward_pre_hook(record))
    try:
        yield largest
    finally:
        for handle in handles:
            handle.remove()


def random_integer_unet(model: Model, bits: Bits, device: torch.device) -> UNet:
    """The integer network of a model with random weights; takes fp32."""
    quantized = quantized_by_magnitude(random_unet(model, device), bits, network_rows(model, 2, device))
    return lower_for_cuda(quantized, torch.float32)


def weight_bytes(network: nn.Module) -> int:
    """Of parameters and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*network.parameters(), *network.buffers()))


def _milliseconds(network: nn.Module, inputs: Inputs) -> float:
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    network(*inputs, return_dict=False)
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


def _cast(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    return tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)


class Replayed(nn.Module):
    """A network evaluated once on a batch and then replayed as a CUDA graph, whatever inputs it is called with.

    `torch.compile`'s own graphs are not used: they leave out what they do not know, and one would not see it.
    """

    @torch.no_grad()
    def __init__(self, network: nn.Module, inputs: Inputs):
        super().__init__()
        self.network = network
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):
                network(*inputs, return_dict=False)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self.output = network(*inputs, return_dict=False)

    def forward(self, *inputs: Tensor, return_dict: bool = False) -> Any:
        self._graph.replay()
        return self.output


class Contest:
    """Networks that take turns on the same batch.

    Args:
        inputs: the batch: samples, timesteps and perhaps a condition.
        mode: of `torch.compile`.
    """

    def __init__(self, inputs: Inputs, mode: str = "default"):
        self.inputs, self.mode = inputs, mode
        self.entries: dict[str, tuple[nn.Module, Inputs]] = {}
        self.rows: dict[str, dict[str, Any]] = {}

    @torch.no_grad()
    def enter(self, name: str, network: nn.Module, dtype: torch.dtype, compiled: bool) -> None:
        """Warms a network up, counts its bytes, and keeps it for `rounds`."""
        inputs = _cast(self.inputs, dtype)
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        size = weight_bytes(network)
        if compiled:
            network.compile(mode=self.mode, dynamic=False)
            network = Replayed(network, inputs)
        for _ in range(3):
            _milliseconds(network, inputs)
        peak = torch.cuda.max_memory_allocated() - before
        self.entries[name] = network, inputs
        self.rows[name] = {"weight_bytes": size, "working_gib": peak / 2**30}

    @torch.no_grad()
    def rounds(self, repeats: int = 15) -> dict[str, dict[str, Any]]:
        """Alternates between the networks, so that all see the same clocks; median milliseconds and images per second of each."""
        times: dict[str, list[float]] = {name: [] for name in self.entries}
        for _ in range(repeats):
            for name, (network, inputs) in self.entries.items():
                _milliseconds(network, inputs)
                times[name].append(_milliseconds(network, inputs))
        for name, found in times.items():
            ms = statistics.median(found)
            self.rows[name] |= {"ms": ms, "fastest_ms": min(found), "samples_per_second": 1000 * len(self.inputs[0]) / ms}
        return self.rows

    @torch.no_grad()
    def profile(self, name: str, most: int = 25) -> list[dict[str, Any]]:
        """The kernels that take most of one evaluation: name, calls, milliseconds, share in [0, 1]."""
        network, inputs = self.entries[name]
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            _milliseconds(network, inputs)
        events = [event for event in profiler.key_averages() if event.self_device_time_total > 0]
        total = sum(event.self_device_time_total for event in events)
        events.sort(key=lambda event: -event.self_device_time_total)
        return [
            {"kernel": e.key[:90], "calls": e.count, "ms": e.self_device_time_total / 1000, "share": e.self_device_time_total / total}
            for e in events[:most]
        ]


def compare_with_integers(
    unet: UNet, bits: Mapping[str, Bits], inputs: Inputs, mode: str = "default", beside: Sequence[str] = FLOATS
) -> dict[str, Any]:
    """The integer network of each width, compiled, and the network in floating point.

    Args:
        unet: fp32, on the GPU, channels last.
        bits: widths by name.
        inputs: the batch.
        mode: of `torch.compile`, `default` or `max-autotune-no-cudagraphs`; each compiled network is replayed as one CUDA graph.
        beside: which of `FLOATS` are measured.

    Returns:
        `networks`, see `Contest.rounds`; `profiles` of the compiled ones but TF32's; `device`, `batch`, `mode`.
    """
    contest, eager = Contest(inputs, mode), {}
    if FLOATS[0] in beside:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        contest.enter(FLOATS[0], unet, torch.float32, False)
        eager = {FLOATS[0]: contest.rounds(3)[FLOATS[0]]}
        contest.entries.clear()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    for name, widths in bits.items():
        contest.enter(
            f"integer {name}", lower_for_cuda(quantized_by_magnitude(unet, widths, tuple(x[:2] for x in inputs))), torch.bfloat16, True
        )
    for name, dtype in ((FLOATS[1], torch.float32), (FLOATS[2], torch.bfloat16)):
        if name in beside:
            contest.enter(name, fused_attention(copy.deepcopy(unet)).to(dtype), dtype, True)
    networks = contest.rounds() | eager
    profiles = {name: contest.profile(name) for name in contest.entries if name != FLOATS[1]}
    return {"device": torch.cuda.get_device_name(), "batch": len(inputs[0]), "mode": mode, "networks": networks, "profiles": profiles}
