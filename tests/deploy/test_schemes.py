"""Schemes of linear layers in files, in simulation and on back-ends: tokens, rotations, low-rank branches."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import edadm
from edadm.config.schema import Bits, LayerBits, Linear, Model
from edadm.deploy.backends import cuda_int8
from edadm.deploy.backends.base import lower
from edadm.deploy.backends.onednn import lower_for_cpu
from edadm.deploy.checkpoint import read_metadata, save_quantized
from edadm.deploy.checkpoint.header import compact_json, digest
from edadm.deploy.export.formats import export
from edadm.deploy.fuse.cpu_transformed import CpuTransformedLinear
from edadm.deploy.grids import grids, quantized_copy, set_grids
from edadm.errors import EdadmError
from edadm.networks.described.told import lines_on
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows
from edadm.networks.settings.architecture import Architecture
from edadm.networks.weights import CheckpointError
from edadm.nn.insert import activation_quantizers, disabled, quantized_layers, transformed_layers
from edadm.passes.prepare import prepare
from edadm.quant import ranges
from edadm.stages.cost.networks import Networks

from ..conftest import Calibration, as_rows

LAYER = "mid_block.attentions.0.to_out.0"
LAYERS = ("mid_block.attentions.*",)
FLOATS = {name: LayerBits(weights=None, activations=None) for name in ("down_*", "up_*", "conv_*")}
SCHEMES = {
    "tokens": Linear(inputs="dynamic"),
    "rotated": Linear(layers=LAYERS, activations=4, rotation="regular_hadamard"),
    "svdquant": Linear(layers=LAYERS, activations=4, inputs="dynamic", rotation="hadamard", rank=3),
}
Made = tuple[Bits, nn.Module, nn.Module, Rows, Path]


@pytest.fixture(scope="module", params=SCHEMES)
def made(
    request: pytest.FixtureRequest,
    float_unet: nn.Module,
    calibration: Calibration,
    architecture: Architecture,
    tmp_path_factory: pytest.TempPathFactory,
) -> Made:
    """The settings, the float and the quantized network, its rows, and its file."""
    smoothing = 0.5 if request.param == "svdquant" else None
    given = {
        "weights": 4,
        "weight_zero_point": "middle",
        "range_batch_size": 4,
        "range_bins": 64,
        "smoothing": smoothing,
    }
    bits = Bits(**given, layers=FLOATS, linear=SCHEMES[request.param])
    quantized, rows = quantized_copy(float_unet, bits), as_rows(calibration)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "THRESHOLDS", 5)
        prepare(quantized, rows, bits)
    path = tmp_path_factory.mktemp("schemes") / "quantized.safetensors"
    save_quantized(quantized, path, architecture, bits, {}, rows.latents.shape[2:])
    return bits, float_unet, quantized, rows, path


@torch.no_grad()
def test_the_network_in_floating_point_stays_and_a_file_computes_the_same(made: Made) -> None:
    bits, unet, quantized, rows, path = made
    plain = quantized_copy(unet, bits)
    set_grids(plain, grids(quantized))
    with disabled(plain):
        torch.testing.assert_close(network_call(plain, rows), network_call(unet, rows), rtol=1e-3, atol=1e-3)
    expected = network_call(quantized, rows)
    loaded = edadm.load(path)
    assert torch.equal(network_call(loaded, rows), expected)
    loaded.load_state_dict(load_file(path))
    assert torch.equal(network_call(loaded, rows), expected)
    loaded.save_pretrained(path.parent / "folder")
    again = path.parent / "folder" / "diffusion_pytorch_model.safetensors"
    assert again.read_bytes() == path.read_bytes()


@torch.no_grad()
def test_integers_on_a_cpu_are_the_simulated_layers(made: Made) -> None:
    _, _, quantized, rows, _ = made
    layers, given = transformed_layers(quantized), {}
    handles = [
        layer.register_forward_pre_hook(lambda _, x, n=name: given.update({n: x[0].clone()}))
        for name, layer in layers.items()
    ]
    network_call(quantized, rows)
    for handle in handles:
        handle.remove()
    lowered = lower_for_cpu(quantized)
    assert LAYER in layers
    for name, layer in layers.items():
        integers = lowered.get_submodule(name)
        assert type(integers) is CpuTransformedLinear
        expected = layer(given[name])
        torch.testing.assert_close(
            integers(given[name]), expected, rtol=1e-5, atol=1e-5 * expected.abs().max()
        )


def test_a_file_says_schemes_and_holds_branches_and_no_grids_of_tokens(made: Made) -> None:
    bits, _, quantized, _, path = made
    assert bits.linear is not None
    facts, tensors = read_metadata(path), load_file(path)
    of_input = facts["schemes"][facts["sites"][f"{LAYER}.input"][0]]
    is_dynamic = bits.linear.inputs == "dynamic"
    assert of_input["granularity"] == ("token" if is_dynamic else "tensor")
    assert (of_input["dynamic"], of_input["symmetric"]) == (is_dynamic, is_dynamic)
    static = activation_quantizers(quantized)
    assert len(tensors["grids.activation_scales"]) == sum(len(grid.scale) for grid in static.values())
    assert (f"{LAYER}.input_quantizer" in static) != is_dynamic
    count = len(transformed_layers(quantized))
    assert any(
        line.startswith(f"  {count} linear layers: weights static affine int4") for line in lines_on(path)
    )
    if bits.linear.rank is None:
        assert not any(name.endswith((".down", ".up")) for name in tensors)
        return
    rows, channels = transformed_layers(quantized)[LAYER].weight.shape
    down, up = tensors[f"{LAYER}.down"], tensors[f"{LAYER}.up"]
    assert (down.shape, up.shape, down.dtype) == ((3, channels), (rows, 3), torch.float16)
    transforms = facts["schemes"][facts["sites"][f"{LAYER}.weight"][0]]["transforms"]
    assert transforms == ["smooth", "hadamard", "low_rank"]
    weight = quantized_layers(quantized)[LAYER].weight
    for wrong in ({f"{LAYER}.up": up[:, :2]}, {f"{LAYER}.down": down * float("inf")}, None):
        changed = tensors | (wrong or {})
        if wrong is None:
            del changed[f"{LAYER}.down"]
        told = facts | {"sha256": digest(changed, facts)}
        other = path.parent / "other.safetensors"
        save_file(
            {name: tensor.contiguous() for name, tensor in changed.items()},
            other,
            {"edadm": compact_json(told)},
        )
        with pytest.raises(CheckpointError, match=LAYER):
            edadm.load(other)
    assert weight.isfinite().all()


def test_what_a_plan_says_of_its_bytes_is_what_a_file_has(made: Made, model: Model) -> None:
    bits, _, quantized, _, path = made
    counted = Networks(model).quantized(bits)
    assert counted.bytes == sum(tensor.nbytes for tensor in load_file(path).values())
    assert counted.grid_bytes == sum(tensor.nbytes for tensor in grids(quantized).values())


def test_other_backends_refuse_and_exports_refuse_or_write_the_plain_weight(
    made: Made, tmp_path: Path
) -> None:
    _, unet, _, _, path = made
    quantized = edadm.load(path)
    name, layer = next(iter(transformed_layers(quantized).items()))
    sentence = f"^{re.escape(name)}: backend 'openvino' computes no .*load with one that does: 'simulated', 'onednn'$"
    if importlib.util.find_spec("openvino"):
        with pytest.raises(EdadmError, match=sentence):
            lower(quantized, backend="openvino")
    schemes = [grid.scheme for grid in (layer.weight_quantizer, layer.input_quantizer) if grid is not None]
    assert not all(cuda_int8.BACKEND.runs(scheme) for scheme in schemes)
    with pytest.raises(EdadmError, match="which is not written as ONNX; take --format diffusers"):
        export(path, tmp_path / "graph.onnx", "onnx")
    export(path, tmp_path / "folder", "diffusers", "fp32")
    found = load_file(tmp_path / "folder" / "diffusion_pytorch_model.safetensors")[f"{LAYER}.weight"]
    weight: Tensor = unet.get_submodule(LAYER).weight
    assert (found - weight).abs().max() < 0.2 * weight.abs().max()
