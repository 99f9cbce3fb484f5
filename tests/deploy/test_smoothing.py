"""Smoothed networks in files, and in the integers of CPUs and GPUs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edadm.config.schema import Bits, Reconstruction
from edadm.deploy.backends.cuda_int8 import lower_for_cuda
from edadm.deploy.backends.onednn import lower_for_cpu
from edadm.deploy.checkpoint import digest, load_quantized, read_metadata, save_quantized
from edadm.deploy.export.formats import to_diffusers
from edadm.deploy.fuse.attention import IntegerFeedForward
from edadm.deploy.fuse.cpu import CpuLayer, CpuLinear
from edadm.deploy.fuse.layers import IntegerConv2d
from edadm.deploy.fuse.transformer import IntegerTransformer, IntegerTransformerBlock
from edadm.deploy.fuse.unet import IntegerResnetBlock
from edadm.deploy.grids import grids, quantized_copy, set_grids
from edadm.errors import EdadmError
from edadm.learning.task import Task
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows
from edadm.networks.trace import trace_units
from edadm.networks.weights import CheckpointError
from edadm.nn.insert import activation_quantizers, quantized_layers
from edadm.passes.methods import run_method
from edadm.quant import ranges

from ..learning.runs import UnitsInMemory
from ..networks.families import calibrated, tiny
from .test_documentation import example

BITS = Bits(weights=4, activations=8, range_batch_size=4, range_bins=64, smoothing=0.5)
NAME = "sd14_coco"  # with norms before linear layers, a context, GEGLU, and split shortcuts
Networks = tuple[nn.Module, nn.Module, Rows]


@pytest.fixture(scope="module")
def networks() -> Networks:
    """A float network with outlier channels, the same smoothed and quantized, and its rows."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranges, "THRESHOLDS", 10)
        return calibrated(NAME, BITS, outliers=8)


@pytest.fixture(scope="module")
def file(networks: Networks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("smoothed") / "quantized.safetensors"
    save_quantized(networks[1], path, tiny(NAME).architecture, BITS, {})
    return path


@torch.no_grad()
def test_a_file_holds_a_smoothed_network(networks: Networks, file: Path, tmp_path: Path) -> None:
    _, unet, rows = networks
    loaded = load_quantized(file)
    assert torch.equal(network_call(loaded, rows), network_call(unet, rows))
    save_quantized(loaded, tmp_path / "again", tiny(NAME).architecture, BITS, {})
    assert (tmp_path / "again").read_bytes() == file.read_bytes()
    tensors, facts = load_file(file), read_metadata(file)
    smoothed = {name: layer for name, layer in quantized_layers(unet).items() if layer.smooth is not None}
    assert {name for name in tensors if name.endswith(".smooth")} == {f"{name}.smooth" for name in smoothed}
    told = {site: facts["schemes"][index]["transforms"] for site, (index, *_) in facts["sites"].items()}
    for site, transforms in told.items():
        name, _, role = site.rpartition(".")
        assert transforms == (["smooth"] if name in smoothed and role in ("weight", "input") else [])
    exponents = torch.cat([tensors[f"{name}.smooth"] for name in smoothed])
    assert exponents.dtype == torch.int8
    assert len(exponents.unique()) > 3


def without(tensors: dict[str, Tensor], name: str) -> None:
    del tensors[name]


def beyond(tensors: dict[str, Tensor], name: str) -> None:
    tensors[name] = tensors[name] + 100


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without, r"the file lacks 'conv_in\.smooth', 4 exponents in int8; it was made for other bits"),
        (beyond, r"'conv_in\.smooth' has exponents beyond 14; make the file again"),
    ],
)
def test_a_file_without_its_factors_is_refused(
    change: Any, sentence: str, file: Path, tmp_path: Path
) -> None:
    tensors, facts = load_file(file), read_metadata(file)
    change(tensors, "conv_in.smooth")
    facts["sha256"] = digest(tensors, facts)
    save_file(tensors, tmp_path / "other.safetensors", {"edadm": json.dumps(facts)})
    with pytest.raises(CheckpointError, match=sentence):
        load_quantized(tmp_path / "other.safetensors")


def test_a_scheme_that_smooths_an_input_alone_is_refused(file: Path, tmp_path: Path) -> None:
    tensors, facts = load_file(file), read_metadata(file)
    index = facts["sites"]["conv_in.weight"][0]
    facts["schemes"].append(facts["schemes"][index] | {"transforms": []})
    facts["sites"]["conv_in.weight"][0] = len(facts["schemes"]) - 1
    facts["sha256"] = digest(tensors, facts)
    save_file(tensors, tmp_path / "other.safetensors", {"edadm": json.dumps(facts)})
    with pytest.raises(CheckpointError, match="conv_in: its weight and its input are smoothed together"):
        load_quantized(tmp_path / "other.safetensors")


def test_other_programs_get_weights_for_inputs_that_nothing_divided(
    networks: Networks, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = quantized_layers(networks[1])
    to_diffusers(file, tmp_path / "plain", torch.float32)
    plain = load_file(tmp_path / "plain" / "diffusion_pytorch_model.safetensors")
    monkeypatch.chdir(file.parent)
    names: dict[str, dict[str, np.ndarray]] = {}
    exec(example("docs/checkpoint_format.md", "Read it with NumPy"), names)
    for name, layer in layers.items():
        assert torch.equal(plain[f"{name}.weight"], layer.unsmoothed_weight), name
        assert np.array_equal(names["weights"][name], layer.unsmoothed_weight.numpy()), name


@torch.no_grad()
def test_a_cast_to_half_precision_keeps_factors(networks: Networks, file: Path) -> None:
    halved = quantized_layers(load_quantized(file).half())
    for name, layer in quantized_layers(networks[1]).items():
        if layer.smooth is not None:
            assert torch.equal(halved[name].smooth.float(), layer.smooth)


def inputs_of(unet: nn.Module, rows: Rows) -> dict[str, Tensor]:
    """The input of every smoothed layer, by name."""
    found: dict[str, Tensor] = {}
    handles = [
        layer.register_forward_pre_hook(lambda _, given, n=name: found.update({n: given[0]}))
        for name, layer in quantized_layers(unet).items()
        if layer.smooth is not None
    ]
    network_call(unet, rows)
    for handle in handles:
        handle.remove()
    return found


def _of_rows(x: Tensor) -> Tensor:
    """The input of a linear layer as that of a convolution of points."""
    return x.reshape(1, -1, x.shape[-1]).transpose(1, 2)[..., None]


@torch.no_grad()
def test_integers_on_a_cpu_are_the_codes_of_the_simulation(networks: Networks) -> None:
    _, unet, rows = networks
    lowered = lower_for_cpu(unet)
    for name, x in inputs_of(unet, rows).items():
        layer, made = unet.get_submodule(name), lowered.get_submodule(name)
        assert isinstance(made, CpuLayer)
        zero_point = layer.input_quantizer.grid(x.dim())[1]
        codes = layer.input_quantizer.codes(x / layer._by_channel(layer.smooth)) - zero_point
        given, expected = (_of_rows(y) if isinstance(made, CpuLinear) else y for y in (x, codes))
        parts = zip(made.segments, given.split(made.sizes, 1), strict=True)
        found = torch.cat([segment.quantize_input(part) for segment, part in parts], 1)
        assert torch.equal(found, expected), name
        torch.testing.assert_close(made(x), layer(x), rtol=1e-4, atol=1e-4)
        if not isinstance(made, CpuLinear):
            assert torch.equal(made.consume(x.clone()), made(x)), name


@pytest.fixture(scope="module")
def of_gpu(networks: Networks) -> tuple[nn.Module, nn.Module]:
    """The network in the integers of a GPU, layer by layer and with fused blocks."""
    return tuple(lower_for_cuda(networks[1], torch.float32, fuse=fuse) for fuse in (False, True))


@torch.no_grad()
def test_integer_layers_of_a_gpu_agree_with_their_simulation(
    networks: Networks, of_gpu: tuple[nn.Module, nn.Module]
) -> None:
    (_, unet, rows), (plain, _) = networks, of_gpu
    for name, x in inputs_of(unet, rows).items():
        layer, made = unet.get_submodule(name), plain.get_submodule(name)
        assert isinstance(made, IntegerConv2d)
        expected = layer(x)
        assert (made(x) - expected).abs().max() <= 1e-5 * expected.abs().max(), name


@torch.no_grad()
def test_residual_blocks_divide_where_they_quantize(of_gpu: tuple[nn.Module, nn.Module]) -> None:
    plain, fused = of_gpu
    blocks = {n: module for n, module in fused.named_modules() if isinstance(module, IntegerResnetBlock)}
    assert len(blocks) == len([module for module in plain.modules() if isinstance(module, ResnetBlock2D)])
    generator, seen = torch.Generator().manual_seed(0), set()
    for name, module in blocks.items():
        block: Any = plain.get_submodule(name)
        x = 3 * torch.randn(2, block.in_channels, 4, 4, generator=generator)
        time = torch.randn(2, sum(block.time_emb_proj.sizes), generator=generator)
        shortcut: Any = module.conv_shortcut
        parts = (x,) if shortcut is None else x.split(shortcut.sizes, 1)  # an input and the skip, or one
        expected = block(x.contiguous(memory_format=torch.channels_last), time)
        found = module(parts[0], time, *parts[1:])
        assert (found - expected).square().mean() < 1e-5 * expected.square().mean(), name
        assert module.conv1.smooth is not None
        assert module.conv2.smooth is not None
        assert shortcut is None or len(module.shortcut_grids.smooth) == x.shape[1]
        seen.add(len(parts))
    assert seen == {1, 2}


@torch.no_grad()
def test_factors_move_into_the_norms_and_gates_of_fused_blocks(
    of_gpu: tuple[nn.Module, nn.Module],
) -> None:
    plain, fused = of_gpu
    kinds = (IntegerTransformer, IntegerTransformerBlock, IntegerFeedForward)
    assert {type(module) for module in fused.modules()} >= set(kinds)
    blocks = {n: module for n, module in fused.named_modules() if isinstance(module, IntegerTransformer)}
    for name, module in blocks.items():
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, module.affine.weight.shape[1], 4, 4, generator=generator)
        block: Any = module.transformer_blocks[0]
        context = torch.randn(2, 5, block.attentions[1].products[1].sizes[0], generator=generator)
        expected = plain.get_submodule(name)(x, encoder_hidden_states=context, return_dict=False)[0]
        found = module(x, encoder_hidden_states=context, return_dict=False)[0]
        assert (found - expected).square().mean() < 1e-5 * (expected - x).square().mean(), name
        keys = block.attentions[1].products[1].segments[0]
        assert keys.smooth is not None  # the context's own
        with pytest.raises(EdadmError, match="this attention is over a context; give encoder_hidden_states"):
            block(x.flatten(2).transpose(1, 2))


@torch.no_grad()
def test_w8a8_of_a_network_with_outlier_channels_errs_less_and_its_integers_agree(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranges, "THRESHOLDS", 10)
    errors, differences = [], []
    for strength in (None, 0.5):
        bits = BITS.model_copy(update={"weights": 8, "smoothing": strength})
        unet, quantized, rows = calibrated("ldm4_bedroom", bits, outliers=32)
        expected, found = network_call(unet, rows), network_call(quantized, rows)
        integers = network_call(lower_for_cpu(quantized), rows)
        power = expected.square().mean()
        errors.append((found - expected).square().mean() / power)
        differences.append((integers - found).square().mean() / power)
    assert errors[1] < 0.8 * errors[0]  # 0.040 and 0.064 of the output's power
    assert max(differences) < 0.01  # a sum that is rounded otherwise makes a code its neighbour


def test_layers_of_one_norm_with_other_factors_are_not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "THRESHOLDS", 10)
    bits = BITS.model_copy(update={"smoothing": None, "smoothing_layers": {"*attn1.to_q": 0.5}})
    _, unet, rows = calibrated(NAME, bits, outliers=8)
    fused = lower_for_cuda(unet, torch.float32)
    assert not [module for module in fused.modules() if isinstance(module, IntegerTransformerBlock)]
    assert [module for module in fused.modules() if isinstance(module, IntegerResnetBlock)]
    for name, quantizer in activation_quantizers(unet).items():
        quantizer.enabled = "processor" not in name  # integers on a GPU have no grids there
    with torch.no_grad():
        expected, found = network_call(unet, rows), network_call(fused, rows)
    for quantizer in activation_quantizers(unet).values():
        quantizer.enabled = True
    assert (found - expected).square().mean() < 0.01 * expected.square().mean()


def test_a_smoothed_network_learns_and_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "THRESHOLDS", 10)
    unet, observed, rows = calibrated("ldm4_bedroom", BITS, outliers=8)
    quantized = quantized_copy(unet, BITS)
    set_grids(quantized, grids(observed))
    settings = Reconstruction(iterations=1, batch_size=2, chain_batch_size=4, bias_correction=True)
    task = Task(unet, quantized, trace_units(unet), rows, 0, settings, UnitsInMemory())
    run_method(task)
    assert all(report.after >= 0 for _, report in task.reports)
    save_quantized(quantized, tmp_path / "q", tiny("ldm4_bedroom").architecture, BITS, {})
    with torch.no_grad():
        assert torch.equal(network_call(load_quantized(tmp_path / "q"), rows), network_call(quantized, rows))


def test_files_of_networks_that_are_not_smoothed_say_nothing_of_it(saved: Path) -> None:
    assert not [key for key in read_metadata(saved)["bits"] if key.startswith("smooth")]
    assert not [name for name in load_file(saved) if name.endswith(".smooth")]
    given = Bits(smoothing=0.0).model_dump(mode="json")
    assert given["smoothing"] == 0.0
    assert Bits.model_validate(given) == Bits(smoothing=0.0)
