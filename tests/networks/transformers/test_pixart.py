"""PixArt: what it is made of at full size, and what it computes when it is tiny, from both layouts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import PixArtTransformer2DModel
from torch import nn

from edadm.config.described.folder import describe_folder
from edadm.config.load import load_config
from edadm.config.schema import Bits, Model
from edadm.deploy.backends.cuda_int8 import lower_for_cuda
from edadm.deploy.backends.onednn import lower_for_cpu
from edadm.deploy.checkpoint import load_quantized, save_quantized
from edadm.deploy.export.onnx import onnx_program
from edadm.deploy.grids import quantized_copy
from edadm.errors import EdadmError
from edadm.networks.build import build_network
from edadm.networks.convert import convert_checkpoint
from edadm.networks.described.tensors import describe_tensors
from edadm.networks.families import family_of, network_call
from edadm.networks.inputs import InputSpec, Rows
from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.unit_names import unit_layers
from edadm.networks.units.trace import Trace, trace
from edadm.nn.insert import quantized_layers
from edadm.passes.prepare import prepare
from edadm.quant.policy import policy
from edadm.sampling.trajectory import recording_inputs

from ..original_pixart import original_state
from ..pixart import PUBLISHED, SIZED, TINY, TOKENS, call, described, rows_of, write_pipeline

PRESET = load_config().models["pixart_xl2"]


@pytest.fixture(scope="module")
def full() -> tuple[nn.Module, Trace]:
    with torch.device("meta"):
        network = build_network(PRESET.architecture)
    return network, trace(network)


@pytest.fixture(scope="module", params=["alpha", "sized"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp(request.param)
    write_pipeline(found, SIZED if request.param == "sized" else TINY)
    return found


@pytest.fixture(scope="module")
def ours(folder: Path) -> nn.Module:
    model = described(folder)
    network = build_network(model.architecture)
    network.load_state_dict(convert_checkpoint(model))
    return network.eval()


def rows_for(network: Any) -> Rows:
    return rows_of(3, sized=network.use_additional_conditions)


def test_the_preset_is_what_the_published_file_says(full: tuple[nn.Module, Trace], tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(PUBLISHED))
    said = describe_folder(tmp_path).settings
    assert Architecture.model_validate(said["architecture"]) == PRESET.architecture
    assert Model.model_validate(said).conditioning.t5 == PRESET.conditioning.t5
    assert said["schedule"] == {"kind": "linear", "start": 1e-4, "end": 0.02}
    with torch.device("meta"):
        theirs = PixArtTransformer2DModel(**{key: value for key, value in PUBLISHED.items() if key[0] != "_"})
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    places = {"pos_embed.pos_embed": (1, 1024, 1152)}
    assert {name: tensor.shape for name, tensor in full[0].state_dict().items()} == shapes | places
    assert sum(parameter.numel() for parameter in theirs.parameters()) == 610_856_096


def test_units_are_what_comes_before_every_block_and_the_last_layer(full: tuple[nn.Module, Trace]) -> None:
    units = {unit.name: unit.layers for unit in full[1].units}
    first = [*("pos_embed.proj", "adaln_single.linear"), *(f"caption_projection.linear_{n}" for n in (1, 2))]
    assert [*units] == [*first, *(f"transformer_blocks.{block}" for block in range(28)), "proj_out"]
    assert units == unit_layers(PRESET.architecture)
    assert len(units["transformer_blocks.5"]) == 10
    assert units["transformer_blocks.5"][-1] == "transformer_blocks.5.ff.net.2"
    roles = Counter(site.role for site in full[1].sites)
    assert roles == {"weight": 285, "input": 285} | dict.fromkeys(("q", "k", "v", "probabilities"), 56)
    numbers = (full[0].get_submodule(name).weight.numel() for own in units.values() for name in own)
    assert sum(numbers) == 608_606_208
    assert family_of(full[0]).feature_module(full[0]) is full[0].get_submodule("transformer_blocks.14")
    couplings = {coupling.norm: coupling.layers for coupling in family_of(full[0]).couplings(full[0])}
    assert len(couplings) == 57
    assert couplings["transformer_blocks.3.norm2"] == ("transformer_blocks.3.ff.net.0.proj",)


def test_embeddings_of_timesteps_stay_in_floating_point(full: tuple[nn.Module, Trace]) -> None:
    schemes = policy(full[1].sites, load_config().bits["pixart_w4a8"])
    widths = {name: given.scheme.format.bits for name, given in schemes.items() if name.endswith(".weight")}
    assert len(widths) == 285
    eight = {name.removesuffix(".weight") for name, bits in widths.items() if bits == 8}
    assert eight == {"pos_embed.proj", "adaln_single.linear", "proj_out"}
    assert not any(".emb." in name for name in widths)
    assert "proj_out.input" not in schemes


@torch.no_grad()
def test_the_network_computes_what_diffusers_does(ours: nn.Module, folder: Path) -> None:
    theirs, rows = PixArtTransformer2DModel.from_pretrained(folder / "transformer").eval(), rows_for(ours)
    expected = call(theirs, rows)
    assert expected.shape == (3, 8, 8, 8)
    assert expected[:, :4].std() > 0.1
    torch.testing.assert_close(network_call(ours, rows), expected[:, :4], rtol=1e-4, atol=1e-5)
    for name in set(rows.tensors) - {"latents"}:
        changed = network_call(ours, Rows({**rows.tensors, name: rows.tensors[name].flip(0)}))
        assert (changed - expected[:, :4]).abs().max() > 1e-3, name
    assert family_of(theirs).name == "pixart"
    tensors = InputSpec.of(described(folder)).shapes
    assert tensors == {name: tuple(tensor.shape[1:]) for name, tensor in rows.tensors.items()}
    assert set(family_of(theirs).inputs(theirs).shapes) == set(tensors)


@torch.no_grad()
def test_features_are_the_tokens_of_the_middle_channels_first(ours: Any) -> None:
    with recording_inputs(family_of(ours).feature_module(ours), rows=2) as found:
        network_call(ours, rows_for(ours))
    assert [tuple(tensor.shape) for tensor in found] == [(2, 48, 16)]


@torch.no_grad()
def test_the_original_layout_is_the_same_network(ours: Any, folder: Path, tmp_path: Path) -> None:
    theirs = PixArtTransformer2DModel.from_pretrained(folder / "transformer").state_dict()
    torch.save({"state_dict": original_state(theirs, blocks=2)}, tmp_path / "pixart.pth")
    said = describe_tensors(tmp_path / "pixart.pth", {})
    architecture = said.settings["architecture"]
    assert architecture["heads"] == 1
    assert architecture.get("size_told", False) == ours.use_additional_conditions
    architecture |= {"heads": 2, "position_scale": ours.config["interpolation_scale"]}
    model = Model.model_validate(said.settings)
    assert model.layout == "pixart"
    assert model.conditioning.t5.channels == 16
    assert any("conditioning.checkpoint" in sentence for sentence in said.left_open)
    converted = convert_checkpoint(model)
    expected = ours.state_dict()
    assert set(converted) == set(expected)
    for name, tensor in converted.items():
        torch.testing.assert_close(tensor, expected[name], msg=name)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"activation_fn": "geglu"}, 'activation_fn: "geglu", and only PixArt'),
        ({"attention_bias": False}, "attention_bias: false, and only attention with biases"),
        ({"attention_type": "gated"}, "attention_type"),
        ({"caption_channels": None}, "caption_channels: null, and only networks that project"),
        ({"cross_attention_dim": 32}, "cross_attention_dim: 32, and only that of a text projected"),
        ({"sample_size": 9}, "image_size 9 cannot be cut into patches of 2"),
    ],
)
def test_another_transformer_is_refused_by_its_key(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**PUBLISHED, **TINY, **changes}))
    with pytest.raises(EdadmError, match=said):
        describe_folder(tmp_path)


def test_what_a_silent_file_means_follows_from_its_size(tmp_path: Path) -> None:
    silent = {key: value for key, value in PUBLISHED.items() if key != "use_additional_conditions"}
    (tmp_path / "config.json").write_text(json.dumps(silent | {"sample_size": 128}))
    said = describe_folder(tmp_path).settings
    assert said["architecture"]["size_told"]
    assert said["architecture"]["position_scale"] == 2
    assert said["conditioning"]["time_ids"] == [1024, 1024]


@pytest.mark.parametrize("folder", ["sized"], indirect=True)
@torch.no_grad()
def test_backends_of_integers_compute_the_quantized_network_and_heed_masks(
    ours: Any, folder: Path, tmp_path: Path
) -> None:
    layers = {"pos_embed.proj": {"weights": 8, "activations": 8}}
    settings = {"weights": 4, "activations": 8, "range_bins": 64, "smoothing": 0.5, "layers": layers}
    bits, rows, sizes = Bits.model_validate(settings), rows_for(ours), described(folder).architecture
    quantized = quantized_copy(ours, bits)
    prepare(quantized, rows, bits)
    for layer in quantized_layers(quantized).values():
        layer.set_codes(layer.nearest_codes())
    save_quantized(quantized, tmp_path / "q.safetensors", sizes, bits, {}, (8, 8))
    again = load_quantized(tmp_path / "q.safetensors")
    exact, expected = network_call(ours, rows), network_call(again, rows)
    apart = (expected - exact).abs().mean()
    assert 0 < apart < exact.std() / 2
    cpu, cuda = lower_for_cpu(again), lower_for_cuda(again, torch.float32)
    assert (network_call(cpu, rows) - expected).abs().mean() < apart / 5
    assert (network_call(cuda, rows) - expected).abs().mean() < apart
    hidden = (1 - rows.tensors["context_mask"])[..., None]
    unseen = Rows(rows.tensors | {"context": rows.tensors["context"] + 50 * hidden})
    unmasked = Rows(rows.tensors | {"context_mask": torch.ones(3, TOKENS)})
    for network in (ours, again, cpu, cuda):
        seen = network_call(network, rows)
        torch.testing.assert_close(network_call(network, unseen), seen, rtol=0, atol=1e-5)
        assert (network_call(network, unmasked) - seen)[1:].abs().max() > 1e-3
    with pytest.raises(EdadmError, match=r"PixArt\) is not written as ONNX"):
        onnx_program(again)
