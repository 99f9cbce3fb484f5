"""MMDiT: what it is made of at full size, and what it computes when it is tiny, in floating point and on grids."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import SD3Transformer2DModel
from torch import nn

from edadm.config.load import load_config
from edadm.config.schema import Bits
from edadm.deploy.backends.cuda_int8 import lower_for_cuda
from edadm.deploy.backends.onednn import lower_for_cpu
from edadm.deploy.checkpoint import load_quantized, save_quantized
from edadm.deploy.export.onnx import onnx_program
from edadm.deploy.grids import quantized_copy
from edadm.errors import EdadmError
from edadm.networks.build import build_network
from edadm.networks.families import family_of, network_call
from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.configs.network import network_architecture
from edadm.networks.settings.unit_names import unit_layers
from edadm.networks.units.trace import Trace, trace
from edadm.nn.insert import disabled, quantized_layers
from edadm.passes.prepare import prepare
from edadm.quant.policy import policy

from ..mmdit import LARGE, MEDIUM, TINY, rows_of, tiny_mmdit

CONFIG = Path("config.json")


def architecture_of(config: dict[str, Any]) -> Architecture:
    plain = json.loads(json.dumps({"_class_name": "SD3Transformer2DModel", **config}))
    return Architecture.model_validate(network_architecture(plain, CONFIG)[0])


@pytest.fixture(scope="module", params=["medium", "large"])
def full(request: pytest.FixtureRequest) -> tuple[str, nn.Module, Trace]:
    sizes = architecture_of({"medium": MEDIUM, "large": LARGE}[request.param])
    with torch.device("meta"):
        network = build_network(sizes)
    return request.param, network, trace(network)


@pytest.fixture(scope="module")
def ours() -> nn.Module:
    network = build_network(architecture_of(TINY))
    network.load_state_dict(tiny_mmdit().state_dict())
    return network.eval().requires_grad_(False)


def test_the_network_is_the_one_that_the_published_file_says(full: tuple[str, nn.Module, Trace]) -> None:
    name, network, _ = full
    config = {"medium": MEDIUM, "large": LARGE}[name]
    with torch.device("meta"):
        theirs = SD3Transformer2DModel(**{key: value for key, value in config.items() if key[0] != "_"})
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    assert {name: tensor.shape for name, tensor in network.state_dict().items()} == shapes
    numbers = sum(parameter.numel() for parameter in theirs.parameters())
    places = network.pos_embed.pos_embed.numel()
    assert sum(parameter.numel() for parameter in network.parameters()) == numbers + places
    assert numbers == {"medium": 2_243_171_520, "large": 8_056_627_520}[name]
    ours, said = (json.loads(one.to_json_string()) for one in (network, theirs))
    assert ours == said


def test_units_are_the_first_layers_every_block_and_the_last_layers(
    full: tuple[str, nn.Module, Trace],
) -> None:
    name, network, found = full
    units = {unit.name: unit.layers for unit in found.units}
    blocks, dual = {"medium": (24, 13), "large": (38, 0)}[name]
    names = [f"transformer_blocks.{block}" for block in range(blocks)]
    assert [*units] == ["pos_embed.proj", "context_embedder", *names, "norm_out.linear", "proj_out"]
    assert units == unit_layers(architecture_of({"medium": MEDIUM, "large": LARGE}[name]))
    assert units["transformer_blocks.1"][-1] == "transformer_blocks.1.ff_context.net.2"
    assert units[names[-1]][-1] == f"{names[-1]}.ff.net.2"
    layers = 14 * blocks - 3 + 4 * dual + 4  # the last block has no output of tokens and no layers after it
    roles = Counter(site.role for site in found.sites)
    assert roles == {"weight": layers, "input": layers} | dict.fromkeys(
        ("q", "k", "v", "probabilities"), blocks + dual
    )
    assert sum(map(len, units.values())) == layers
    assert family_of(network).feature_module(network) is network.get_submodule(names[blocks // 2])
    couplings = family_of(network).couplings(network)
    assert len(couplings) == 4 * blocks - 1 + dual + 1
    assert {layer for coupling in couplings for layer in coupling.layers} <= {
        layer for unit in units.values() for layer in unit
    }


def test_embeddings_of_timestep_and_text_stay_in_floating_point(full: tuple[str, nn.Module, Trace]) -> None:
    schemes = policy(full[2].sites, load_config().bits["mmdit_w4a8"])
    widths = {
        name.removesuffix(".weight"): given.scheme.format.bits
        for name, given in schemes.items()
        if name.endswith(".weight")
    }
    assert not any(name.startswith("time_text_embed") for name in widths)
    assert widths["transformer_blocks.3.attn.add_k_proj"] == 4
    assert {name for name, bits in widths.items() if bits == 8} == {
        "pos_embed.proj",
        "context_embedder",
        "proj_out",
    }
    assert "proj_out.input" not in schemes


@torch.no_grad()
@pytest.mark.parametrize("changes", [{}, {"qk_norm": None, "dual_attention_layers": ()}])
def test_the_network_computes_what_diffusers_does(changes: dict[str, Any]) -> None:
    theirs, rows = tiny_mmdit(**changes).eval(), rows_of(3)
    network = build_network(architecture_of(TINY | changes))
    network.load_state_dict(theirs.state_dict())
    told = (rows.tensors["context"], rows.tensors["pooled"], rows.timesteps)
    expected = theirs(rows.latents, *told).sample
    assert expected.std() > 0.1
    torch.testing.assert_close(network_call(network.eval(), rows), expected, rtol=1e-5, atol=1e-5)
    for name in ("context", "pooled", "timesteps"):
        changed = type(rows)({**rows.tensors, name: rows.tensors[name].flip(0)})
        assert (network_call(network, changed) - expected).abs().max() > 1e-3, name
    assert family_of(theirs).name == "mmdit"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"qk_norm": "layer_norm"}, 'qk_norm: "layer_norm", and only rms_norm'),
        (
            {"caption_projection_dim": 48},
            "caption_projection_dim: 48, and tokens of a text are as wide as pa",
        ),
        ({"out_channels": 8}, "out_channels: 8, and a flow has the channels of the latents here, 4"),
        ({"sample_size": 16}, "image_size 16 has more than 6 patches along a side; raise places"),
        ({"dual_attention_layers": [2]}, "dual_blocks names the block 2 of 2; remove it"),
        ({"something": 1}, "something: 1, and this package does not know what that does"),
    ],
)
def test_another_transformer_is_refused_by_its_key(changes: dict[str, object], said: str) -> None:
    with pytest.raises(EdadmError, match=said):
        architecture_of(TINY | changes)


@pytest.fixture(scope="module")
def quantized(ours: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    layers = {"pos_embed.proj": {"weights": 8, "activations": 8}}
    settings = {"weights": 4, "activations": 8, "softmax": 8, "range_bins": 64, "smoothing": 0.5}
    bits, rows = Bits.model_validate(settings | {"layers": layers}), rows_of(4)
    found = quantized_copy(ours, bits)
    with disabled(found), torch.no_grad():
        torch.testing.assert_close(network_call(found, rows), network_call(ours, rows), rtol=1e-4, atol=1e-5)
    prepare(found, rows, bits)
    for layer in quantized_layers(found).values():
        layer.set_codes(layer.nearest_codes())
    file = tmp_path_factory.mktemp("mmdit") / "q.safetensors"
    save_quantized(found, file, architecture_of(TINY), bits, {}, (8, 8))
    again = load_quantized(file)
    with torch.no_grad():
        torch.testing.assert_close(network_call(found, rows), network_call(again, rows), rtol=0, atol=1e-5)
    return again


@torch.no_grad()
def test_backends_of_integers_compute_the_quantized_network_of_a_file(
    ours: nn.Module, quantized: nn.Module
) -> None:
    rows = rows_of(4)
    exact, expected = network_call(ours, rows), network_call(quantized, rows)
    apart = (expected - exact).abs().mean()
    assert 0 < apart < exact.std() / 2
    assert (network_call(lower_for_cpu(quantized), rows) - expected).abs().mean() < apart / 5
    assert (network_call(lower_for_cuda(quantized, torch.float32), rows) - expected).abs().mean() < apart


@torch.no_grad()
def test_one_grid_lies_over_the_operands_of_both_streams(quantized: nn.Module) -> None:
    attention: Any = quantized.get_submodule("transformer_blocks.0.attn")
    given: list[torch.Tensor] = []
    grid = attention.processor.key_quantizer
    handle = grid.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    network_call(quantized, rows_of(2, tokens=5))
    handle.remove()
    assert given[0].shape == (2, 16 + 5, 32)
    assert grid.scale.numel() == 1
    heads = given[0].unflatten(
        -1, (2, 16)
    ) / torch.stack(  # normalised before the grid, by gains of their own
        [attention.norm_k.weight] * 16 + [attention.norm_added_k.weight] * 5
    ).unsqueeze(1)
    torch.testing.assert_close(heads.square().mean(-1), torch.ones(2, 21, 2), rtol=1e-3, atol=1e-3)


def test_formats_without_a_way_for_it_refuse_it(quantized: nn.Module) -> None:
    with pytest.raises(EdadmError, match=r"has two streams of tokens .* is not written as ONNX"):
        onnx_program(quantized)


def test_openvino_which_takes_whole_timesteps_refuses_it(quantized: nn.Module) -> None:
    pytest.importorskip("openvino")
    from edadm.deploy.backends.openvino import lower_for_openvino

    with pytest.raises(
        EdadmError, match="'mmdit' is evaluated at fractions of timesteps, and is not computed"
    ):
        lower_for_openvino(quantized)
