"""Each module of an integer network is given what its simulation is given: Stable Diffusion XL, smoothed and not.

Whole networks are no measure: a sum that is rounded otherwise makes a code its neighbour, and a tiny random
network carries one such code on to the size of its quantization error. Two kinds of values lie just between
two codes far more often than by chance. The largest value of calibration rows does, -127.5 steps from zero,
where a range is that of a single batch. So does what an attention with hardly more than one weight copies
from the grid of its values: smoothing divides that grid by powers of two.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edadm.config.schema import Bits
from edadm.deploy.backends.cuda_int8 import lower_for_cuda
from edadm.deploy.backends.onednn import lower_for_cpu
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows
from edadm.nn.attention import QuantizedAttention
from edadm.nn.insert import activation_quantizers
from edadm.nn.layers import QuantizedLayer
from edadm.quant import ranges

from ...networks.sdxl import calibrated_sdxl

Calls = dict[str, tuple[tuple[Any, ...], dict[str, Any], Tensor]]
Made = tuple[nn.Module, nn.Module, Rows]
LAYER_BOUND = 1e-8  # of the power of a layer's quantization error; 1e-9 was seen
BLOCK_BOUND = 0.2  # likewise of blocks, within which a code may become its neighbour; 0.02 was seen
BLOCKS = {  # the lowered kinds that stand for a block
    "onednn": {
        "CpuResnetBlock",
        "QuantizedAttention",
        "FeedForward",
        "Transformer2DModel",
        "TimestepEmbedding",
        "Upsample2D",
        "Downsample2D",
    },
    "cuda_int8": {
        "IntegerResnetBlock",
        "IntegerFeedForward",
        "IntegerTransformerBlock",
        "IntegerTransformer",
        "IntegerUpBlock",
        "TimestepEmbedding",
        "Upsample2D",
        "Downsample2D",
    },
}


@pytest.fixture(scope="module", params=[0.5, pytest.param(None, marks=pytest.mark.long)])
def made(request: pytest.FixtureRequest) -> Made:
    """A float network with outlier channels, the same quantized, and its rows."""
    bits = Bits(weights=8, activations=8, range_batch_size=2, range_bins=64, smoothing=request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "THRESHOLDS", 10)
        unet, quantized, rows = calibrated_sdxl(bits, outliers=8)
    for quantizer in activation_quantizers(quantized).values():  # so that no largest value lies between codes
        quantizer.set_grid(1.003 * quantizer.scale, quantizer.zero_point)
    return unet, quantized, rows


def copied(given: Any) -> Any:
    """The arguments of a call, which it cannot spoil."""
    if isinstance(given, dict):
        return {name: copied(one) for name, one in given.items()}
    if isinstance(given, tuple):
        return tuple(map(copied, given))
    return given.clone() if isinstance(given, Tensor) else given


def found_in(output: Any) -> Tensor:
    """All numbers that a module returns."""
    if isinstance(output, Tensor):
        return output.double().flatten()
    return torch.cat([found_in(one) for one in output])


def calls_of(unet: nn.Module, rows: Rows) -> Calls:
    """What every module with a layer in it is given, and its output."""
    calls: Calls = {}

    def keep(name: str, given: Any, named: Any, output: Any) -> None:
        calls[name] = copied(given), copied(named), found_in(copied(output))

    handles = [
        module.register_forward_hook(
            lambda _, given, named, out, n=name: keep(n, given, named, out), with_kwargs=True
        )
        for name, module in unet.named_modules()
        if name and any(isinstance(part, QuantizedLayer) for part in module.modules())
    ]
    network_call(unet, rows)
    for handle in handles:
        handle.remove()
    return calls


def errors_of(made: Made, lowered: nn.Module) -> dict[str, dict[str, float]]:
    """By kind and name of the lowered modules, how far each is from its simulation.

    Powers of the difference, over that of the simulation to the float module with the same input.
    """
    unet, quantized, rows = made
    modules, found = dict(lowered.named_modules()), {}
    for name, (given, named, simulated) in calls_of(quantized, rows).items():
        if name not in modules:  # fused into its block
            continue
        exact, integer = (
            found_in(one(*copied(given), **copied(named)))
            for one in (unet.get_submodule(name), modules[name])
        )
        error = ((integer - simulated).square().sum() / (simulated - exact).square().sum()).item()
        found.setdefault(type(modules[name]).__name__, {})[name] = error
    return found


def assert_agrees(made: Made, lowered: nn.Module, layers: set[str], blocks: set[str]) -> None:
    """Layers agree to rounding, and blocks to codes that may be neighbours."""
    found = errors_of(made, lowered)
    assert set(found) >= layers | blocks
    for kind in layers:
        assert max(found[kind].values()) < LAYER_BOUND, (kind, found[kind])
    for kind in blocks:
        assert max(found[kind].values()) < BLOCK_BOUND, (kind, found[kind])
    assert {"add_embedding", "time_embedding"} == set(found["TimestepEmbedding"])


@torch.no_grad()
def test_modules_of_a_cpu_agree_with_those_of_the_simulation(made: Made) -> None:
    assert_agrees(made, lower_for_cpu(made[1]), {"CpuConv2d", "CpuLinear"}, BLOCKS["onednn"])


@torch.no_grad()
def test_both_products_of_a_cpus_attention_agree_with_the_simulation(made: Made) -> None:
    _, quantized, rows = made
    calls, lowered, seen = calls_of(quantized, rows), lower_for_cpu(quantized), 0
    for name, attention in quantized.named_modules():
        if not isinstance(attention, QuantizedAttention):
            continue
        projected = [
            calls[f"{name}.{part}"][2].float().reshape(2, 16, -1) for part in ("to_q", "to_k", "to_v")
        ]
        expected = attention.processor.mixed(attention, *copied(tuple(projected)), None)
        found = lowered.get_submodule(name).processor.mixed(attention, *copied(tuple(projected)), None)
        apart = (found - expected).abs() > 1e-5 * expected.abs().max()
        assert apart.float().mean() < 0.1, name  # one weight with another code moves one of 64 rows
        seen += 1
    assert seen == 16


@torch.no_grad()
def test_fused_modules_of_a_gpu_agree_with_those_of_the_simulation(made: Made) -> None:
    _, quantized, _ = made
    of_attention = [one for name, one in activation_quantizers(quantized).items() if "processor" in name]
    for quantizer in of_attention:
        quantizer.enabled = False  # integers on a GPU have no grids there
    try:
        lowered = lower_for_cuda(quantized, torch.float32)
        layers = {"IntegerConv2d", "IntegerLinear", "IntegerGatheredConv2d"}
        assert_agrees(made, lowered, layers, BLOCKS["cuda_int8"])
        sizes = lowered.add_embedding.linear_1
        assert (sizes.in_features, sizes.out_features) == (34, 32)
    finally:
        for quantizer in of_attention:
            quantizer.enabled = True
