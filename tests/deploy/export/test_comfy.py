"""ComfyUI's int8 layout, read by its definition and multiplied by CompVis' own network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import edadm
from edadm.config.schema import Bits
from edadm.deploy.checkpoint import save_quantized
from edadm.deploy.export import comfy
from edadm.deploy.export.formats import export
from edadm.errors import EdadmError
from edadm.networks.convert import convert_checkpoint
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows
from edadm.networks.layouts.compvis_unet import from_diffusers
from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.configs.unet import unet_architecture
from edadm.nn.insert import disabled, quantized_layers
from edadm.nn.layers import QuantizedLinear
from edadm.quant import ranges

from ...networks.families import tiny
from ...networks.original_ldm import OriginalLdmUNet
from ...networks.sdxl import calibrated_sdxl
from ...networks.single_file import in_compvis
from ..conftest import SMOOTH, SMOOTHED, Family, Made

UNET = "model.diffusion_model."
CLASS = {"_class_name": "UNet2DConditionModel"}


def by_definition(file: Path) -> tuple[dict[str, Tensor], dict[str, dict[str, object]]]:
    """Float weights by the names inside the U-Net, and what is said of the int8 layers."""
    state = {name.removeprefix(UNET): tensor for name, tensor in load_file(file).items()}
    told = {}
    for mark in [name for name in state if name.endswith(".comfy_quant")]:
        layer = mark.removesuffix(".comfy_quant")
        told[layer] = json.loads(state.pop(mark).numpy().tobytes())
        codes, scale = state[f"{layer}.weight"], state.pop(f"{layer}.weight_scale")
        assert (codes.dtype, scale.dtype, scale.shape) == (torch.int8, torch.float32, (len(codes), 1))
        state[f"{layer}.weight"] = codes.float() * scale
    return state, told


@torch.no_grad()
def test_compvis_network_computes_what_the_quantized_weights_do(made: Made, tmp_path: Path) -> None:
    _, path, rows = made
    export(path, tmp_path / "unet.safetensors", "comfy", "fp32")
    state, told = by_definition(tmp_path / "unet.safetensors")
    quantized = edadm.load(path)
    linear = [one for one in quantized_layers(quantized).values() if isinstance(one, QuantizedLinear)]
    assert len(told) == len(linear) > 20
    assert all(facts == {"format": "int8_tensorwise"} for facts in told.values())
    original = OriginalLdmUNet(tiny("sd14_coco").architecture)
    original.load_state_dict(state)
    with disabled(quantized):
        expected = network_call(quantized, Rows(rows))
    found = original(rows["latents"], rows["timesteps"], rows["context"])
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@torch.no_grad()
def test_sdxl_keeps_its_names_and_the_values_of_8_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that reach 128 are negated; a layer whose input has no grid asks for a product in floating point."""
    monkeypatch.setattr(ranges, "THRESHOLDS", 10)
    bits = Bits(weights=8, activations=8, range_bins=64, range_batch_size=2)
    unet, quantized, _ = calibrated_sdxl(bits)
    settings, _ = unet_architecture(json.loads(unet.to_json_string()) | CLASS, tmp_path)
    architecture = Architecture.model_validate(settings)
    layers = quantized_layers(quantized)
    for layer in layers.values():
        layer.input_quantizer = None
    file = tmp_path / "unet.safetensors"
    monkeypatch.setattr(comfy, "read_metadata", lambda _: {"architecture": architecture.model_dump()})
    monkeypatch.setattr(comfy, "load_quantized", lambda _: quantized)
    comfy.to_comfy(tmp_path / "quantized", file, torch.float32)
    state, told = by_definition(file)
    values = in_compvis(unet)
    assert state.keys() == values.keys()
    for name, layer in layers.items():
        unet.get_submodule(name).weight.data = layer.weight.data
    assert all(torch.equal(state[name], tensor) for name, tensor in in_compvis(unet).items())
    assert all(
        facts == {"format": "int8_tensorwise", "full_precision_matrix_mult": True} for facts in told.values()
    )
    assert {"label_emb.0.0", "input_blocks.3.1.proj_in"} <= told.keys()
    scales = [tensor for name, tensor in load_file(file).items() if name.endswith("weight_scale")]
    assert min(float(scale.min()) for scale in scales) < 0 < max(float(scale.max()) for scale in scales)


def test_smoothed_layers_are_rounded_again(
    smoothed: Family, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_quantized(smoothed[1], tmp_path / "quantized", tiny(SMOOTHED).architecture, SMOOTH, {})
    export(tmp_path / "quantized", tmp_path / "unet.safetensors", "comfy")
    kinds = {tensor.dtype for tensor in load_file(tmp_path / "unet.safetensors").values()}
    assert kinds == {torch.int8, torch.uint8, torch.float32, torch.float16}
    state, told = by_definition(tmp_path / "unet.safetensors")
    architecture = tiny(SMOOTHED).architecture
    layers = {
        compvis_name: layer
        for name, layer in quantized_layers(smoothed[1]).items()
        for compvis_name in from_diffusers({f"{name}.weight": layer.weight}, architecture)
        if isinstance(layer, QuantizedLinear)
    }
    assert {name.removesuffix(".weight") for name in layers} == told.keys()
    again = 0
    for name, layer in layers.items():
        weight = layer.unsmoothed_weight
        steps = (state[name] - weight).abs() / (weight.abs().amax(1, keepdim=True) / 127)
        assert steps.max() <= 0.501
        again += bool((layer.smooth != 1).any())
    assert again > 10
    said = f"{len(told)} of {len(quantized_layers(smoothed[1]))} quantized layers are int8; {again} of these were"
    assert said in capsys.readouterr().err


def test_a_network_that_comfyui_does_not_have_is_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(
        EdadmError, match=r"ComfyUI has no such network as .* \(it is told no text\); it takes"
    ):
        export(saved, tmp_path / "unet.safetensors", "comfy")
    assert not (tmp_path / "unet.safetensors").exists()


def test_the_file_is_read_as_a_checkpoint(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So the same images can be made of it as of the network it came from."""
    export(made[1], tmp_path / "unet.safetensors", "comfy", "fp32")
    found = convert_checkpoint(
        tiny("sd14_coco", tmp_path / "unet.safetensors", autoencoder=None, conditioning=None)
    )
    layers = quantized_layers(edadm.load(made[1]))
    assert all(torch.equal(found[f"{name}.weight"], layer.weight) for name, layer in layers.items())
    assert (
        "layers are int8 (ComfyUI's layout), and were taken as the values of their codes"
        in capsys.readouterr().err
    )
