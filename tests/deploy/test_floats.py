"""Float networks by kernels against the same networks without; interpreted on a CPU where there is no GPU."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from edadm.config.load import load_config
from edadm.config.schema import Model
from edadm.deploy import floats
from edadm.deploy.floats import FloatGroupNorm, FloatResnetBlock, fused
from edadm.kernels.dispatch import without_kernels
from edadm.networks import load
from edadm.networks.build import build_network
from edadm.networks.families import family_of, network_call
from edadm.networks.inputs import InputSpec, Rows
from edadm.networks.random_weights import random_network
from edadm.sampling.trajectory import recording_inputs
from edadm.stages.inputs.model import open_float

from ..conftest import Calibration, as_rows, reinitialise
from ..networks.families import tiny

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether there are kernels, as a list of one: the interpreter's, on a CPU."""
    has = [True]
    monkeypatch.setattr(floats, "has_kernels", lambda x: has[0])
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return has


def made(name: str) -> tuple[nn.Module, Rows]:
    model = tiny(name)
    network = build_network(model.architecture).eval().requires_grad_(False)
    reinitialise(network, 3)
    generator = torch.Generator().manual_seed(4)
    shapes = InputSpec.of(model).zeros(2).tensors
    drawn = {
        name: torch.randn(tensor.shape, generator=generator) if tensor.is_floating_point() else tensor + 321
        for name, tensor in shapes.items()
    }
    return network, Rows(drawn)


@pytest.mark.parametrize(
    "name", ["ldm8_church", pytest.param("sd14_coco", marks=pytest.mark.long)]
)  # FiLM and blocks that resample; transformers
def test_a_latent_network_has_the_same_outputs(name: str, interpreted: list[bool]) -> None:
    network, rows = made(name)
    assert_same_outputs(network, rows, interpreted)


def test_a_network_of_pixels_has_the_same_outputs_and_features(
    float_unet: nn.Module, calibration: Calibration, interpreted: list[bool]
) -> None:
    assert_same_outputs(copy.deepcopy(float_unet), as_rows(calibration)[:1], interpreted)


def assert_same_outputs(network: nn.Module, rows: Rows, interpreted: list[bool]) -> None:
    network, rows = network.to(DEVICE), rows.to(DEVICE)
    feature = family_of(network).feature_module(network)
    with recording_inputs(feature, 2) as features:
        expected = network_call(network, rows)
        assert fused(network) is network
        y = network_call(network, rows)
        interpreted[0] = False
        plain = network_call(network, rows)
    assert torch.equal(plain, expected)
    assert not torch.equal(y, expected)  # so the kernels ran
    torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features[1], features[0], rtol=1e-4, atol=1e-4)
    left = [module for module in network.modules() if isinstance(module, ResnetBlock2D)]
    blocks = [module for module in network.modules() if isinstance(module, FloatResnetBlock)]
    assert len(blocks) >= 5
    assert all(block.upsample is None and block.downsample is None for block in (one.block for one in blocks))
    assert len(left) - len(blocks) == sum(bool(block.upsample or block.downsample) for block in left)
    assert isinstance(network.conv_norm_out, FloatGroupNorm)


def test_half_precision_and_other_devices_are_computed_as_before(interpreted: list[bool]) -> None:
    block = FloatGroupNorm(nn.GroupNorm(4, 16), silu=True).to(DEVICE)
    x = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    expected = nn.functional.silu(block.norm_of_torch(x))
    with torch.autocast(DEVICE.type, torch.bfloat16):
        assert torch.equal(block(x), expected)
    assert block(x).is_contiguous(memory_format=torch.channels_last)
    interpreted[0] = False
    assert torch.equal(block(x), expected)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_stages_open_it_by_kernels_on_a_gpu_alone(
    device: str, float_unet: nn.Module, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "load_network", lambda *_: copy.deepcopy(float_unet))
    network = open_float(model.architecture, Path("unet.safetensors"), torch.device(device))
    assert any(isinstance(module, FloatResnetBlock) for module in network.modules()) == (device == "cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device on this machine")
@pytest.mark.parametrize("name", ["ddim_cifar10", "ldm8_church"])
def test_full_size_networks_on_a_gpu(name: str) -> None:
    model = load_config({}).models[name]
    network, rows = random_network(model, "cuda"), InputSpec.of(model).random(6, "cuda")
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        expected = network_call(network, rows)
        y = network_call(fused(network), rows)
        with without_kernels():
            plain = network_call(network, rows)
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
    assert torch.equal(plain, expected)
    assert not torch.equal(y, expected)
    torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-3 * float(expected.std()))
