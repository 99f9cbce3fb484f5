"""Smoothed networks in files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from edadm.config.schema import Bits, Reconstruction
from edadm.deploy.checkpoint import digest, load_quantized, read_metadata, save_quantized
from edadm.deploy.export.formats import to_diffusers
from edadm.deploy.grids import grids, quantized_copy, set_grids
from edadm.learning.task import Task
from edadm.networks.families import network_call
from edadm.networks.units.trace import trace_units
from edadm.networks.weights import CheckpointError
from edadm.nn.insert import quantized_layers
from edadm.passes.methods import run_method
from edadm.quant import ranges

from ..learning.runs import UnitsInMemory
from ..networks.families import calibrated, tiny
from .conftest import SMOOTH, SMOOTHED, Family
from .test_documentation import example


@pytest.fixture(scope="module")
def file(smoothed: Family, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("smoothed") / "quantized.safetensors"
    save_quantized(smoothed[1], path, tiny(SMOOTHED).architecture, SMOOTH, {})
    return path


@torch.no_grad()
def test_a_file_holds_a_smoothed_network(smoothed: Family, file: Path, tmp_path: Path) -> None:
    _, unet, rows = smoothed
    loaded = load_quantized(file)
    assert torch.equal(network_call(loaded, rows), network_call(unet, rows))
    save_quantized(loaded, tmp_path / "again", tiny(SMOOTHED).architecture, SMOOTH, {})
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
    smoothed: Family, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = quantized_layers(smoothed[1])
    to_diffusers(file, tmp_path / "plain", torch.float32)
    plain = load_file(tmp_path / "plain" / "diffusion_pytorch_model.safetensors")
    monkeypatch.chdir(file.parent)
    names: dict[str, dict[str, np.ndarray]] = {}
    exec(example("docs/checkpoint_format.md", "Read it with NumPy"), names)
    for name, layer in layers.items():
        assert torch.equal(plain[f"{name}.weight"], layer.unsmoothed_weight), name
        assert np.array_equal(names["weights"][name], layer.unsmoothed_weight.numpy()), name


@torch.no_grad()
def test_a_cast_to_half_precision_keeps_factors(smoothed: Family, file: Path) -> None:
    halved = quantized_layers(load_quantized(file).half())
    for name, layer in quantized_layers(smoothed[1]).items():
        if layer.smooth is not None:
            assert torch.equal(halved[name].smooth.float(), layer.smooth)


def test_a_smoothed_network_learns_and_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "THRESHOLDS", 10)
    unet, observed, rows = calibrated("ldm4_bedroom", SMOOTH, outliers=8)
    quantized = quantized_copy(unet, SMOOTH)
    set_grids(quantized, grids(observed))
    settings = Reconstruction(iterations=1, batch_size=2, chain_batch_size=4, bias_correction=True)
    task = Task(unet, quantized, trace_units(unet), rows, 0, settings, UnitsInMemory())
    run_method(task)
    assert all(report.after >= 0 for _, report in task.reports)
    save_quantized(quantized, tmp_path / "q", tiny("ldm4_bedroom").architecture, SMOOTH, {})
    with torch.no_grad():
        assert torch.equal(network_call(load_quantized(tmp_path / "q"), rows), network_call(quantized, rows))


def test_files_of_networks_that_are_not_smoothed_say_nothing_of_it(saved: Path) -> None:
    assert not [key for key in read_metadata(saved)["bits"] if key.startswith("smooth")]
    assert not [name for name in load_file(saved) if name.endswith(".smooth")]
    given = Bits(smoothing=0.0).model_dump(mode="json")
    assert given["smoothing"] == 0.0
    assert Bits.model_validate(given) == Bits(smoothing=0.0)
