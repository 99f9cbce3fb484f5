"""Networks evaluated with integers beside the same in floating point, all compiled, on one GPU.

In one run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from edadm.benchmark.contest import Contest, Results
from edadm.config.schema import Bits, Model
from edadm.deploy.backends.cuda_int8 import lower_for_cuda
from edadm.deploy.fuse.network import fuse_attention
from edadm.deploy.grids import quantized_copy
from edadm.errors import EdadmError
from edadm.networks.families import network_call
from edadm.networks.family import Network
from edadm.networks.inputs import InputSpec, Rows
from edadm.networks.random_weights import random_network
from edadm.nn.insert import activation_quantizers, disabled, quantized_layers
from edadm.passes.ranges import cover_weights
from edadm.quant.affine import scale_and_zero_point

FLOATS = ("fp32 eager", "bf16 compiled", "tf32 compiled")
TORCHAO = "torchao int8 linear"
BESIDE = (*FLOATS, TORCHAO)
MODES = ("default", "max-autotune-no-cudagraphs")


def check_choices(mode: str, beside: Sequence[str] = BESIDE) -> None:
    """Refuses what `compare_with_integers` does not know.

    Raises:
        EdadmError: with what it knows.
    """
    if mode not in MODES:
        raise EdadmError(
            f"there is no mode '{mode}' for this comparison, which records its own CUDA graphs; known are "
            f"{', '.join(MODES)}"
        )
    if unknown := [name for name in beside if name not in BESIDE]:
        raise EdadmError(
            f"there is no network '{unknown[0]}' to measure beside integers; known are {', '.join(BESIDE)}"
        )


@torch.no_grad()
def quantized_by_magnitude(unet: Network, bits: Bits, inputs: Rows) -> Network:
    """A quantized copy whose grids reach to the largest magnitudes, for timing only.

    Those of weights, and of what `inputs` lead to.
    """
    quantized = quantized_copy(unet, bits)
    for layer in quantized_layers(quantized).values():
        cover_weights(layer)
        layer.set_codes(layer.nearest_codes())
    with _magnitudes(quantized) as largest, disabled(quantized):
        network_call(quantized, inputs)
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


def random_integer_unet(model: Model, bits: Bits, device: torch.device) -> Network:
    """The integer network of a model with random weights, its layers one by one; takes fp32."""
    inputs = InputSpec.of(model).random(2, device)
    quantized = quantized_by_magnitude(random_network(model, device), bits, inputs)
    return lower_for_cuda(quantized, torch.float32, fuse=False)


def _by_torchao(unet: Network) -> nn.Module:
    """The network in bf16, with linear layers that torchao computes in int8.

    Their inputs' scales are taken from each row as it comes.
    """
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    network = fuse_attention(copy.deepcopy(unet)).to(torch.bfloat16)
    quantize_(network, Int8DynamicActivationInt8WeightConfig())
    return network


def compare_with_integers(
    unet: Network,
    bits: Mapping[str, Bits],
    inputs: Rows,
    mode: str = "default",
    beside: Sequence[str] = BESIDE,
    fuse: Sequence[bool] = (False, True),
    on_rows: Callable[[Results], None] = lambda rows: None,
) -> dict[str, Any]:
    """The integer network of each width, compiled, and the network in floating point.

    Args:
        unet: fp32, on the GPU, channels last.
        bits: widths by name.
        inputs: the batch.
        mode: of `torch.compile`, one of `MODES`; each compiled network is replayed as one CUDA graph.
        beside: which of `BESIDE` are measured.
        fuse: see `lower_for_cuda`; of each width, a network with each of these is measured.
        on_rows: see `Contest`.

    Returns:
        `networks`, a row each: `ms`, `fastest_ms`, `samples_per_second`, `weight_bytes`,
            `warm_evaluation_gib`, or `failed` with a reason;
        `profiles` of the compiled ones but TF32's; `device`, `batch`, `mode`.

    Raises:
        EdadmError: see `check_choices`.
    """
    check_choices(mode, beside)
    contest = Contest(inputs, mode, on_rows)
    _enter_all(contest, unet, bits, beside, fuse)
    networks, profiles = contest.rounds(), {}
    for name in [name for name in contest.entries if name != FLOATS[2]]:
        with contest.guarded(name, "profile_failed"):
            profiles[name] = contest.profile(name)
    return {
        "device": torch.cuda.get_device_name(),
        "batch": len(inputs),
        "mode": mode,
        "networks": networks,
        "profiles": profiles,
    }


def _enter_all(
    contest: Contest, unet: Network, bits: Mapping[str, Bits], beside: Sequence[str], fuse: Sequence[bool]
) -> None:
    """Enters all networks into a contest, in the order in which they are shown; see `compare_with_integers`.

    What runs in fp32 as it comes is only timed on its own, before TF32 is allowed.
    """
    if FLOATS[0] in beside:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        contest.enter(FLOATS[0], lambda: unet, torch.float32, False)
        contest.entries.clear()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    half = torch.bfloat16

    if FLOATS[1] in beside:
        contest.enter(FLOATS[1], lambda: fuse_attention(copy.deepcopy(unet)).to(half), half, True)

    @cache
    def quantized(name: str) -> Network:
        return quantized_by_magnitude(unet, bits[name], contest.inputs[:2])

    def lowered(name: str, fuse: bool) -> Network:
        return lower_for_cuda(quantized(name), half, fuse=fuse)

    for name in bits:
        for fused in fuse:
            contest.enter(
                f"integer {name}{' fused' if fused else ''}", partial(lowered, name, fused), half, True
            )
    if TORCHAO in beside:
        contest.enter(
            TORCHAO, lambda: _by_torchao(unet), half, True, note="convolutions and attention stay in bf16"
        )
    if FLOATS[2] in beside:
        contest.enter(FLOATS[2], lambda: fuse_attention(copy.deepcopy(unet)), torch.float32, True)
