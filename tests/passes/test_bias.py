"""Bias correction of single blocks and of a network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from edadm.config.schema import Bits, Model
from edadm.deploy.checkpoint import load_quantized, save_quantized
from edadm.errors import EdadmError
from edadm.learning.capture.arguments import Arguments
from edadm.learning.capture.data import UnitData
from edadm.learning.steps.losses import squared_error
from edadm.nn.insert import quantized_layers
from edadm.passes.bias import correct_bias

from ..learning.toys import KINDS, float_block, quantized_block, unit_data

Blocks = tuple[Any, Any, Any]


def blocks(kind: str, weight_bits: int = 3) -> Blocks:
    """A float block, its copy with weights rounded to nearest, and 12 rows."""
    block = float_block(kind)
    data = unit_data(kind, block, 12, 5)
    quantized = quantized_block(block, data, weight_bits)
    for layer in quantized_layers(quantized).values():
        layer.set_codes(layer.nearest_codes())
    return block, quantized, data


def floating(data: UnitData) -> Arguments:
    """What the float block is called with."""
    return data.exact


def means(module: nn.Module, names: list[str], arguments: Arguments) -> dict[str, Tensor]:
    """Mean output of each layer per channel: of axis 1 for four dimensions, of the last axis for two or three."""
    found: dict[str, Tensor] = {}

    def listen(name: str) -> Callable[..., None]:
        def keep(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            found[name] = output.mean((0, 2, 3)) if output.dim() == 4 else output.flatten(0, -2).mean(0)

        return keep

    handles = [module.get_submodule(name).register_forward_hook(listen(name)) for name in names]
    with torch.no_grad():
        arguments.call(module)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_layers_mean_output_is_that_of_the_float_layer(kind: str) -> None:
    block, quantized, data = blocks(kind)
    names = list(quantized_layers(quantized))
    wanted, before = means(block, names, floating(data)), means(quantized, names, data.quantized)
    corrected = correct_bias(block, quantized, names, floating(data), data.quantized, 5)
    after = means(quantized, names, data.quantized)
    assert set(corrected) == set(names)
    for name in names:
        assert (before[name] - wanted[name]).abs().max() > 1e-3
        torch.testing.assert_close(after[name], wanted[name], atol=2e-6, rtol=1e-5)
        assert torch.equal(quantized.get_submodule(name).bias, corrected[name])
    assert not any(module._forward_hooks for module in (*block.modules(), *quantized.modules()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_units_error_falls(kind: str) -> None:
    block, quantized, data = blocks(kind)

    def error() -> float:
        with torch.no_grad():
            return squared_error(data.quantized.call(quantized), data.target).item()

    before = error()
    correct_bias(block, quantized, list(quantized_layers(quantized)), floating(data), data.quantized, 12)
    assert error() < before


def test_order_and_batch_size_do_not_matter_but_earlier_corrections_do() -> None:
    block, quantized, data = blocks("shortcut")
    names = list(quantized_layers(quantized))
    inputs = floating(data), data.quantized
    whole = correct_bias(block, copy.deepcopy(quantized), names, *inputs, 12)
    parts = correct_bias(block, copy.deepcopy(quantized), names[::-1], *inputs, 5)
    assert list(whole) == list(parts)
    assert list(whole).index("conv1") < list(whole).index("conv2")
    for name in names:
        torch.testing.assert_close(whole[name], parts[name], atol=1e-6, rtol=1e-5)
    alone = correct_bias(block, copy.deepcopy(quantized), ["conv2"], *inputs, 12)
    assert (alone["conv2"] - whole["conv2"]).abs().max() > 1e-4


def test_float_parameters_stay_and_checkpoints_carry_the_new_biases(
    float_unet: UNet2DModel,
    gridded: Callable[[], nn.Module],
    calibration: tuple[Tensor, Tensor],
    bits: Bits,
    model: Model,
    tmp_path: Path,
) -> None:
    unet = gridded()
    for layer in quantized_layers(unet).values():
        layer.set_codes(layer.nearest_codes())
    state = {name: tensor.clone() for name, tensor in float_unet.state_dict().items()}
    arguments = Arguments(dict(enumerate(calibration)), {"return_dict": False})
    names = ["conv_in", "time_embedding.linear_2", "up_blocks.0.resnets.0.conv_shortcut"]
    assert unet.conv_in.bias.data_ptr() == float_unet.conv_in.bias.data_ptr()
    corrected = correct_bias(float_unet, unet, names, arguments, arguments, 8)
    assert list(corrected) == ["time_embedding.linear_2", "conv_in", "up_blocks.0.resnets.0.conv_shortcut"]
    for name, tensor in float_unet.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    save_quantized(unet, path := tmp_path / "quantized.safetensors", model.architecture, bits, {})
    loaded = load_quantized(path)
    for name, bias in corrected.items():
        assert torch.equal(loaded.get_submodule(name).bias, bias)
        assert not torch.equal(float_unet.get_submodule(name).bias, bias)


def test_layers_without_bias_are_left_alone() -> None:
    block, quantized, data = blocks("plain")
    for module in (block, quantized):
        module.conv1.bias = None
    corrected = correct_bias(block, quantized, ["conv1", "conv2"], floating(data), data.quantized, 12)
    assert list(corrected) == ["conv2"]
    assert quantized.conv1.bias is None


def test_a_unit_that_is_a_layer_itself_has_the_empty_name() -> None:
    block, quantized, data = blocks("layer")
    corrected = correct_bias(block[0], quantized[0], [""], floating(data), data.quantized, 12)
    assert torch.equal(quantized[0].bias, corrected[""])


def test_names_that_are_no_quantized_layers_or_never_run_are_refused() -> None:
    block, quantized, data = blocks("plain")
    with pytest.raises(EdadmError, match="bias correction: 'norm1' is no quantized layer"):
        correct_bias(block, quantized, ["norm1"], floating(data), data.quantized, 12)
    for module, layer in ((block, block.conv1), (quantized, quantized.conv1)):
        module.idle = copy.deepcopy(layer)
    with pytest.raises(EdadmError, match="bias correction: the unit never runs 'idle'; leave it out"):
        correct_bias(block, quantized, ["conv1", "idle"], floating(data), data.quantized, 12)
