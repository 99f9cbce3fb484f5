"""DiT: what it is made of at full size, and what it computes when it is tiny, from both layouts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import torch
from diffusers import DiTTransformer2DModel
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
from edadm.networks.inputs import InputSpec
from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.unit_names import unit_layers
from edadm.networks.units.trace import Trace, trace
from edadm.nn.insert import quantized_layers
from edadm.passes.prepare import prepare
from edadm.quant.policy import policy

from ..dit import CLASSES, PUBLISHED, TINY, described, rows_of, write_pipeline
from ..original_dit import OriginalDit

PRESET = load_config().models["dit_xl2"]


@pytest.fixture(scope="module")
def full() -> tuple[nn.Module, Trace]:
    with torch.device("meta"):
        network = build_network(PRESET.architecture)
    return network, trace(network)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("dit")
    write_pipeline(found)
    return found


@pytest.fixture(scope="module")
def ours(folder: Path) -> nn.Module:
    model = described(folder)
    network = build_network(model.architecture)
    network.load_state_dict(convert_checkpoint(model))
    return network.eval()


def test_the_preset_is_what_the_published_file_says(full: tuple[nn.Module, Trace], tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer" / "config.json").write_text(json.dumps(PUBLISHED))
    said = describe_folder(tmp_path).settings
    assert Architecture.model_validate(said["architecture"]) == PRESET.architecture
    assert said["conditioning"] == {
        "kind": "classes",
        "classes": 1000,
        "guidance": 4.0,
        "images_per_class": 50,
    }
    with torch.device("meta"):
        theirs = DiTTransformer2DModel(**{key: value for key, value in PUBLISHED.items() if key[0] != "_"})
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    places = {"pos_embed.pos_embed": (1, 256, 1152)}
    assert {name: tensor.shape for name, tensor in full[0].state_dict().items()} == shapes | places
    assert sum(parameter.numel() for parameter in full[0].parameters()) == 750_121_376


def test_units_are_the_patches_every_block_and_the_last_layers(full: tuple[nn.Module, Trace]) -> None:
    units = {unit.name: unit.layers for unit in full[1].units}
    blocks = [f"transformer_blocks.{block}" for block in range(28)]
    assert [*units] == ["pos_embed.proj", *blocks, "proj_out_1", "proj_out_2"]
    assert units == unit_layers(PRESET.architecture)
    assert units["transformer_blocks.5"][-1] == "transformer_blocks.5.ff.net.2"
    roles = Counter(site.role for site in full[1].sites)
    assert roles == {"weight": 199, "input": 199} | dict.fromkeys(("q", "k", "v", "probabilities"), 28)
    assert (
        sum(full[0].get_submodule(name).weight.numel() for own in units.values() for name in own)
        == 671_569_920
    )
    assert family_of(full[0]).feature_module(full[0]) is full[0].get_submodule("transformer_blocks.14")


def test_embeddings_of_timesteps_stay_in_floating_point(full: tuple[nn.Module, Trace]) -> None:
    schemes = policy(full[1].sites, load_config().bits["dit_w4a8"])
    widths = {
        name.removesuffix(".weight"): given.scheme.format.bits
        for name, given in schemes.items()
        if name.endswith(".weight")
    }
    assert len(widths) == 199
    assert widths["transformer_blocks.3.norm1.linear"] == 4
    assert not any(".emb." in name for name in widths)
    assert {name for name, bits in widths.items() if bits == 8} == {"pos_embed.proj", "proj_out_2"}
    assert "transformer_blocks.3.norm1.linear.input" in schemes
    assert "proj_out_2.input" not in schemes
    with pytest.raises(EdadmError, match=r"the pattern 'time_embedding.linear_1' matches no layer"):
        policy(full[1].sites, Bits())


@torch.no_grad()
def test_the_network_computes_what_diffusers_does(ours: nn.Module, folder: Path) -> None:
    theirs, rows = DiTTransformer2DModel.from_pretrained(folder / "transformer"), rows_of(3)
    expected = theirs.eval()(rows.latents, rows.timesteps, rows.tensors["labels"][:, 0]).sample
    assert expected.shape == (3, 8, 8, 8)
    assert expected[:, :4].std() > 0.1
    torch.testing.assert_close(network_call(ours, rows), expected[:, :4], rtol=1e-4, atol=1e-5)
    for name in ("labels", "timesteps"):
        changed = network_call(ours, type(rows)({**rows.tensors, name: rows.tensors[name].flip(0)}))
        assert (changed - expected[:, :4]).abs().max() > 1e-3, name
    assert family_of(theirs).name == "dit"


@torch.no_grad()
def test_the_original_layout_gives_each_block_the_same_embeddings(
    ours: nn.Module, folder: Path, tmp_path: Path
) -> None:
    sizes = described(folder).architecture
    original = OriginalDit(sizes, last=127).eval()
    state = original.state_dict()
    for tensor in state.values():
        tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(tensor.numel())) * 0.1)
    file = tmp_path / "dit.pt"
    torch.save(state | {"pos_embed": original.places()}, file)
    said = describe_tensors(file, {})
    assert said.settings["architecture"] == {
        "family": "dit",
        "image_size": 8,
        "in_channels": 4,
        "out_channels": 8,
        "channels": 32,
        "heads": 1,
        "blocks": 2,
        "patch": 2,
        "classes": CLASSES,
    }
    architecture = said.settings["architecture"] | {"heads": 2}
    model = Model.model_validate(said.settings | {"architecture": architecture})
    converted = convert_checkpoint(model)
    network = build_network(model.architecture)
    network.load_state_dict(converted)
    rows = rows_of(3)
    expected = original(rows.latents, rows.timesteps, rows.tensors["labels"][:, 0])
    assert expected.std() > 0.1
    found = network.eval()(rows.latents, rows.timesteps, rows.tensors["labels"][:, 0]).sample
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(converted["pos_embed.pos_embed"], original.places())
    embedded = "norm1.emb.class_embedder.embedding_table.weight"
    assert torch.equal(
        converted[f"transformer_blocks.0.{embedded}"], converted[f"transformer_blocks.1.{embedded}"]
    )
    original.last = 128  # in which diffusers and the makers' code differ
    assert (
        original(rows.latents, rows.timesteps, rows.tensors["labels"][:, 0]) - expected
    ).abs().max() > 1e-3


def test_a_preset_has_labels_and_no_network_for_them(folder: Path) -> None:
    model = described(folder)
    assert model.parts == ("unet", "autoencoder")
    assert InputSpec.of(model).shapes == {"latents": (4, 8, 8), "timesteps": (), "labels": (1,)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"activation_fn": "geglu"}, 'activation_fn: "geglu", and only DiT'),
        ({"attention_bias": False}, "attention_bias: false, and only attention with biases"),
        ({"norm_type": "ada_norm_single"}, "norm_type"),
        ({"sample_size": 9}, "image_size 9 cannot be cut into patches of 2"),
        ({"out_channels": 5}, "out_channels is 5; set it to 8"),
    ],
)
def test_another_transformer_is_refused_by_its_key(
    changes: dict[str, object], said: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**PUBLISHED, **TINY, **changes}))
    with pytest.raises(EdadmError, match=said):
        describe_folder(tmp_path)


@torch.no_grad()
def test_backends_of_integers_compute_the_quantized_network_of_a_file(
    ours: nn.Module, folder: Path, tmp_path: Path
) -> None:
    layers = {"pos_embed.proj": {"weights": 8, "activations": 8}}
    settings = {"weights": 4, "activations": 8, "range_bins": 64, "smoothing": 0.5, "layers": layers}
    bits, rows, sizes = Bits.model_validate(settings), rows_of(4), described(folder).architecture
    quantized = quantized_copy(ours, bits)
    prepare(quantized, rows, bits)
    for layer in quantized_layers(quantized).values():
        layer.set_codes(layer.nearest_codes())
    save_quantized(quantized, tmp_path / "q.safetensors", sizes, bits, {}, (8, 8))
    again = load_quantized(tmp_path / "q.safetensors")
    exact, expected = network_call(ours, rows), network_call(again, rows)
    torch.testing.assert_close(network_call(quantized, rows), expected, rtol=0, atol=1e-5)
    apart = (expected - exact).abs().mean()
    assert 0 < apart < exact.std() / 2
    assert (network_call(lower_for_cpu(again), rows) - expected).abs().mean() < apart / 5
    assert (network_call(lower_for_cuda(again, torch.float32), rows) - expected).abs().mean() < apart
    with pytest.raises(EdadmError, match=r"embeds classes by itself \(DiT\) is not written as ONNX"):
        onnx_program(again)
