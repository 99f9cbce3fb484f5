"""Random integer networks for timing, and what is counted of them; the timing itself needs a GPU (tests/test_gpu.py)."""

from __future__ import annotations

import pytest
import torch

from edadm.benchmark.integer import quantized_by_magnitude, random_integer_unet, weight_bytes
from edadm.benchmark.kernels import problems_of
from edadm.config.load import load_config
from edadm.config.schema import Bits
from edadm.kernels.tiles import Problem
from edadm.models.random_weights import random_unet
from edadm.nn.surgery import activation_quantizers, quantized_layers
from edadm.planning.network import network_rows

from ..models.families import tiny

CPU = torch.device("cpu")


def bits(name: str) -> Bits:
    return load_config({}).bits[name]


@torch.no_grad()
def test_grids_reach_to_what_occurs_and_no_further() -> None:
    model = tiny("sd14_coco")
    unet, inputs = random_unet(model, CPU), network_rows(model, 2, CPU)
    quantized = quantized_by_magnitude(unet, bits("official_w8a8"), inputs)
    for name, layer in quantized_layers(quantized).items():
        weight = unet.get_submodule(name).weight
        assert (layer.weight - weight).abs().max() <= layer.weight_quantizer.scale.max(), name
    for name, quantizer in activation_quantizers(quantized).items():
        assert ((quantizer.scale != 1) & torch.isfinite(quantizer.scale)).all(), name
    exact, found = unet(*inputs, return_dict=False)[0], quantized(*inputs, return_dict=False)[0]
    assert 0 < (found - exact).square().mean() < 0.05 * exact.square().mean()


@pytest.mark.parametrize(("name", "smallest", "largest"), [("official_w8a8", 3.0, 4.0), ("official_w4a8", 5.0, 8.0)])
def test_an_integer_network_has_a_fraction_of_the_bytes(name: str, smallest: float, largest: float) -> None:
    model = tiny("ldm8_church")
    ratio = weight_bytes(random_unet(model, CPU)) / weight_bytes(random_integer_unet(model, bits(name), CPU))
    assert smallest < ratio < largest


def test_problems_are_those_of_the_layers_and_a_split_layer_poses_two() -> None:
    model = tiny("ldm4_imagenet")
    network, inputs = random_integer_unet(model, bits("official_w4a8"), CPU), network_rows(model, 2, CPU)
    found = problems_of(network, *inputs)
    first = network.get_submodule("conv_in").segments[0].shape
    assert found[Problem(2 * 8 * 8, first[0], first[3], 3, 1)] == (2, 8, 8, first[3])
    split = next(module for module in network.modules() if len(getattr(module, "sizes", ())) == 2)
    channels = {problem.channels for problem in found if problem.columns == split.segments[0].shape[0] and problem.side == 1}
    assert set(split.sizes) <= channels
