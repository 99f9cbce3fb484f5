"""States of quantized networks, on every back-end."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import edadm
from edadm.deploy.checkpoint import read_metadata
from edadm.deploy.diffusers import WEIGHTS, QuantizedUNet
from edadm.errors import EdadmError
from edadm.nn.insert import quantized_layers
from edadm.nn.quantizer import Quantizer

from ...networks.families import tiny
from ..conftest import BACKENDS, SMOOTH, SMOOTHED, Family, Made, output
from ..conftest import save_quantized as save

INTEGERS = ("cpu", "gpu", "gpu, not fused")
LAYER = "down_blocks.0.resnets.0.conv1"


@pytest.fixture(scope="module")
def other(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a network of the same architecture, with other codes, grids and biases."""
    unet = edadm.load(made[1])
    for layer in quantized_layers(unet).values():
        layer.codes.copy_(layer.codes.flip(0))
    for module in unet.modules():
        if isinstance(module, Quantizer):
            module.scale.mul_(1.25)
        if isinstance(module, Quantizer) and module.rows is None:
            module.zero_point.copy_((module.zero_point + 40).clamp(max=200))
        if isinstance(module, nn.GroupNorm):
            module.bias.data.add_(0.1)
    for layer in quantized_layers(unet).values():
        layer.refold()
    unet.save_pretrained(tmp_path_factory.mktemp("other"))
    return tmp_path_factory.getbasetemp() / "other0" / WEIGHTS


@pytest.mark.parametrize("state", [lambda path: edadm.load(path).state_dict(), load_file])
def test_a_simulated_network_takes_the_state_of_another_and_is_saved_as_that(
    state: Callable[[Path], dict[str, Tensor]], made: Made, other: Path, tmp_path: Path
) -> None:
    unet, expected = edadm.load(made[1]), output(edadm.load(other), made[2])
    assert not torch.equal(output(unet, made[2]), expected)
    assert str(unet.load_state_dict(state(other))) == "<All keys matched successfully>"
    assert torch.equal(output(unet, made[2]), expected)
    unet.save_pretrained(tmp_path)
    assert (tmp_path / WEIGHTS).read_bytes() == other.read_bytes()


def test_numbers_changed_in_place_are_not_saved_as_what_nobody_computed(made: Made, tmp_path: Path) -> None:
    unet = edadm.load(made[1])
    unet.state_dict()[f"{LAYER}.weight_quantizer.scale"].mul_(2)
    with pytest.raises(
        EdadmError, match=f"{LAYER} computes with another weight.* give them to load_state_dict"
    ):
        unet.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()
    unet.load_state_dict(unet.state_dict())
    unet.save_pretrained(tmp_path)
    assert torch.equal(output(edadm.load(tmp_path), made[2]), output(unet, made[2]))


def test_provenance_stays_with_its_numbers(saved: Path, tmp_path: Path) -> None:
    unet = edadm.load(saved)
    unet.load_state_dict(unet.state_dict())
    unet.save_pretrained(tmp_path)
    assert (tmp_path / WEIGHTS).read_bytes() == saved.read_bytes()
    state = unet.state_dict()
    state["conv_in.bias"] = state["conv_in.bias"] + 1
    unet.load_state_dict(state)
    unet.save_pretrained(tmp_path)
    assert read_metadata(saved)["provenance"]
    assert read_metadata(tmp_path / WEIGHTS)["provenance"] == {}


def test_factors_of_smoothing_are_part_of_a_state(smoothed: Family, tmp_path: Path) -> None:
    _, quantized, rows = smoothed
    save(quantized, tmp_path / "smooth.safetensors", tiny(SMOOTHED).architecture, SMOOTH, {})
    unet, expected = edadm.load(tmp_path / "smooth.safetensors"), output(quantized, dict(rows.tensors))
    name = next(name for name, layer in quantized_layers(unet).items() if layer.smooth is not None)
    state = {key: tensor.clone() for key, tensor in unet.state_dict().items()}
    unet.load_state_dict(state | {f"{name}.smooth": 2 * state[f"{name}.smooth"]})
    assert not torch.equal(output(unet, dict(rows.tensors)), expected)
    unet.load_state_dict(load_file(tmp_path / "smooth.safetensors"))
    assert torch.equal(output(unet, dict(rows.tensors)), expected)
    with pytest.raises(EdadmError, match=rf"{name}\.smooth holds 3\.0, no power of two"):
        unet.load_state_dict(state | {f"{name}.smooth": torch.full_like(state[f"{name}.smooth"], 3)})


State = dict[str, Tensor]
BAD: dict[str, tuple[Callable[[State], Any], str]] = {
    "float": (
        lambda s: {key: tensor for key, tensor in s.items() if key.endswith((".weight", ".bias"))},
        r"a weight of conv_in without codes, as networks in full precision have; load a quantized file",
    ),
    "part of a layer": (lambda s: s.pop(f"{LAYER}.codes"), rf"a weight of {LAYER} without codes"),
    "no grid": (
        lambda s: s.pop(f"{LAYER}.input_quantizer.scale"),
        rf"some of {LAYER}, but no {LAYER}\.input_quantizer\.scale",
    ),
    "absent": (lambda s: s.pop("conv_norm_out.bias"), r"has no conv_norm_out\.bias, and is not one of this"),
    "more": (lambda s: s.update(zz=torch.ones(1)), "the state has zz, and is not one of this network"),
    "shape": (
        lambda s: s.update({"conv_in.bias": torch.ones(3)}),
        r"conv_in\.bias of \(3,\), not \(\d+,\), and is not",
    ),
    "scale": (
        lambda s: s.update({f"{LAYER}.input_quantizer.scale": torch.tensor([-1.0])}),
        rf"the scale of {LAYER}\.input_quantizer is -1\.0, no positive number",
    ),
    "code": (lambda s: s[f"{LAYER}.codes"].fill_(99), rf"{LAYER} has the code 99, not from 0 to 15"),
    "number": (lambda s: s["conv_in.bias"].fill_(torch.nan), r"conv_in\.bias holds nan"),
}


@pytest.mark.parametrize("case", BAD)
def test_other_states_are_refused_and_change_nothing(case: str, made: Made) -> None:
    change, words = BAD[case]
    unet = edadm.load(made[1])
    before = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    state = {name: tensor.clone() for name, tensor in before.items()}
    found = change(state)
    with pytest.raises(EdadmError, match=words):
        unet.load_state_dict(found if isinstance(found, dict) else state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in unet.state_dict().items())


def test_files_of_other_networks_are_refused(made: Made, saved: Path) -> None:
    with pytest.raises(EdadmError, match="the file is not one of this network"):
        edadm.load(made[1]).load_state_dict(load_file(saved))


def test_whole_layers_may_be_missing_where_that_is_asked_for(made: Made, other: Path) -> None:
    unet, state = edadm.load(made[1]), edadm.load(other).state_dict()
    part = {name: tensor for name, tensor in state.items() if name.startswith(LAYER)}
    assert unet.load_state_dict(part, strict=False).missing_keys
    assert torch.equal(unet.get_submodule(LAYER).weight, state[f"{LAYER}.weight"])
    with pytest.raises(EdadmError, match=rf"a weight of {LAYER} without codes"):
        unet.load_state_dict({f"{LAYER}.weight": state[f"{LAYER}.weight"]}, strict=False)


@pytest.mark.parametrize("backend", INTEGERS)
def test_integers_take_no_state(backend: str, made: Made, networks: dict[str, QuantizedUNet]) -> None:
    for state in (networks[backend].state_dict(), load_file(made[1])):
        with pytest.raises(
            EdadmError, match=r"takes no state; load the file with `edadm\.load\(FILE, backend="
        ):
            networks[backend].load_state_dict(state)


@pytest.mark.parametrize("backend", BACKENDS)
def test_parameters_are_counted_as_before_they_were_quantized(
    backend: str, made: Made, networks: dict[str, QuantizedUNet]
) -> None:
    unet = networks[backend]
    assert unet.num_parameters() == made[0].num_parameters()
    assert unet.num_parameters(exclude_embeddings=True) == made[0].num_parameters(exclude_embeddings=True)
    assert unet.num_parameters(only_trainable=True) == 0
    codes = sum(layer.codes.numel() for layer in quantized_layers(networks["simulated"]).values())
    assert unet.get_memory_footprint() > (codes / 2 if backend.startswith("gpu") else codes)
    assert unet.get_memory_footprint(return_buffers=False) < unet.get_memory_footprint()


@pytest.mark.parametrize("backend", ["simulated", *INTEGERS])
def test_pickles_work_or_are_refused(backend: str, made: Made, networks: dict[str, QuantizedUNet]) -> None:
    unet = networks[backend]
    if backend == "cpu":
        with pytest.raises(EdadmError, match="cannot be pickled; pickle a network with backend 'simulated'"):
            pickle.dumps(unet)
    else:
        found = pickle.loads(pickle.dumps(unet))
        assert torch.equal(output(found, made[2]), output(unet, made[2]))
        assert (found.backend, found.facts, type(found)) == (unet.backend, unet.facts, type(unet))


def test_a_cast_to_double_precision_and_back_loses_nothing(made: Made, tmp_path: Path) -> None:
    edadm.load(made[1]).double().float().save_pretrained(tmp_path)
    assert (tmp_path / WEIGHTS).read_bytes() == made[1].read_bytes()
