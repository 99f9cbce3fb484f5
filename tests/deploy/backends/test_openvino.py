"""Networks computed by OpenVINO against the simulated model."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import edadm
from edadm.config.backends import BACKENDS
from edadm.config.schema import Bits
from edadm.deploy.backends.base import implementation, lower
from edadm.deploy.checkpoint import save_quantized
from edadm.deploy.diffusers import QuantizedUNet
from edadm.deploy.export import onnx as exporter
from edadm.errors import EdadmError
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows
from edadm.nn.insert import quantized_layers
from edadm.quant import ranges

from ...networks.families import FAMILIES, calibrated, tiny

W8A8 = Bits(weights=8, activations=8, softmax=8, range_bins=64, range_batch_size=4)
Made = tuple[QuantizedUNet, QuantizedUNet, Rows]


@pytest.fixture(scope="module")
def runtime() -> None:
    """Skips where OpenVINO is not installed."""
    for name in ("onnx", "onnxscript", "openvino"):
        pytest.importorskip(name)


def few_thresholds(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ranges, "THRESHOLDS", 10)


def mean_difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().mean().item()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_family_predicts_what_its_simulation_does(
    family: str, runtime: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    few_thresholds(monkeypatch)
    unet, quantized, rows = calibrated(family, W8A8)
    lowered = lower(quantized, backend="openvino")
    for batch in (rows, rows[:1]):
        simulated = network_call(quantized, batch)
        bound = mean_difference(simulated, network_call(unet, batch))  # as in test_onednn.py
        assert mean_difference(network_call(lowered, batch), simulated) <= bound


@pytest.fixture(scope="module")
def made(runtime: None, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The tiny Stable Diffusion network, simulated and by OpenVINO, and rows; to be left as they are."""
    path = tmp_path_factory.mktemp("openvino") / "quantized.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        few_thresholds(patch)
        _, quantized, rows = calibrated("sd14_coco", W8A8)
    save_quantized(quantized, path, tiny("sd14_coco").architecture, W8A8, {})
    return edadm.load(path), edadm.load(path, backend="openvino"), rows


def named(rows: Rows, **others: Any) -> dict[str, Any]:
    """The arguments as pipelines give them."""
    own = {"sample": "latents", "timestep": "timesteps", "encoder_hidden_states": "context"}
    empty = {"cross_attention_kwargs": {}, "added_cond_kwargs": None}
    return {name: rows.tensors[key] for name, key in own.items()} | empty | others


@torch.no_grad()
def test_it_is_called_as_the_network_of_diffusers(made: Made) -> None:
    simulated, unet, rows = made
    expected = unet(**named(rows)).sample
    assert mean_difference(expected, simulated(**named(rows)).sample) < 0.05 * expected.std().item()
    assert type(unet) is type(simulated)
    assert type(unet(**named(rows))) is type(simulated(**named(rows)))
    assert (unet.dtype, unet.device.type, unet.backend) == (torch.float32, "cpu", "openvino")
    assert unet.config["sample_size"] == simulated.config["sample_size"]
    assert torch.equal(unet(**named(rows), return_dict=False)[0], expected)
    assert torch.equal(copy.deepcopy(unet)(**named(rows)).sample, expected)
    last_channels = rows.latents.contiguous(memory_format=torch.channels_last)
    assert torch.equal(unet(**named(rows, sample=last_channels)).sample, expected)
    for time in (400, 400.0, torch.tensor(400), torch.tensor([400.0])):
        of_one = unet(**named(rows, timestep=time)).sample[1]
        torch.testing.assert_close(of_one, expected[1], rtol=1e-3, atol=1e-3)


REFUSED: dict[str, tuple[Callable[[Any, Rows], object], str]] = {
    "a move": (lambda unet, rows: unet.to("meta"), "stays on the CPU and in fp32, and cannot go to meta"),
    "a cast": (lambda unet, rows: unet.half(), "cannot go to cpu in torch.float16"),
    "a mask": (
        lambda unet, rows: unet(**named(rows, encoder_attention_mask=torch.ones(4, 5))),
        "takes no encoder_attention_mask; leave it out, or load with backend 'simulated'",
    ),
    "another size": (
        lambda unet, rows: unet(**named(rows, sample=torch.zeros(4, 4, 16, 8))),
        "takes latents of 4 x 8 x 8 alone, not of 4 x 16 x 8",
    ),
    "between timesteps": (
        lambda unet, rows: unet(**named(rows, timestep=torch.tensor([1, 2, 3.5, 4]))),
        "takes whole timesteps, not 3.5; take another scheduler, or load with backend 'simulated'",
    ),
    "FreeU": (lambda unet, rows: unet.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4), "no blocks for FreeU"),
    "processors": (lambda unet, rows: unet.set_attn_processor(object()), "keeps its processors"),
    "saving": (lambda unet, rows: unet.save_pretrained("folder"), "cannot be saved"),
}


@pytest.mark.parametrize("what", REFUSED)
@torch.no_grad()
def test_what_it_does_not_do_is_refused_and_changes_nothing(what: str, made: Made) -> None:
    _, unet, rows = made
    expected = unet(**named(rows)).sample
    act, sentence = REFUSED[what]
    with pytest.raises(EdadmError, match=sentence):
        act(unet, rows)
    unet.to("cpu", torch.float32).to(memory_format=torch.channels_last)
    assert torch.equal(unet(**named(rows)).sample, expected)


def test_no_number_in_gives_no_number_out_of_that_image_alone(made: Made) -> None:
    _, unet, rows = made
    expected = unet(**named(rows)).sample
    for name, bad in (("sample", torch.inf), ("encoder_hidden_states", torch.nan), ("timestep", torch.nan)):
        given = named(rows)
        given[name] = given[name].float()
        given[name][1] = bad
        found = unet(**given).sample
        assert found[1].isnan().all()
        torch.testing.assert_close(found[[0, 2, 3]], expected[[0, 2, 3]], rtol=1e-3, atol=1e-3)


def test_other_types_and_too_large_networks_are_refused(
    runtime: None, folded: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EdadmError, match=r"load with dtype torch\.float32, not torch\.bfloat16"):
        lower(folded, torch.bfloat16, "openvino")
    monkeypatch.setattr(exporter, "LARGEST", 2**10)
    with pytest.raises(EdadmError, match=r"one ONNX file holds 9.54e-07 GiB, and the network has \S+; use"):
        lower(folded, backend="openvino")


@torch.no_grad()
def extreme(unet: nn.Module) -> None:
    """Gives every weight the smallest or the largest code, and its grid the old weight's spread."""
    for layer in quantized_layers(unet).values():
        grid, before = layer.weight_quantizer, layer.weight.std()
        top = 2**grid.bits - 1
        layer.set_codes(torch.where(layer.nearest_codes() > top // 2, top, 0).to(torch.uint8))
        grid.set_grid(grid.scale * before / layer.weight.std(), grid.zero_point)
        layer.set_codes(layer.codes)


PREDICT = """
import sys
import numpy, torch
import edadm
unet, rows = edadm.load(sys.argv[1], backend="openvino"), numpy.load(sys.argv[2])
with torch.no_grad():
    found = unet(torch.from_numpy(rows["latents"]), torch.from_numpy(rows["timesteps"])).sample
numpy.save(sys.argv[3], found.numpy())
"""


@torch.no_grad()
def test_the_largest_codes_do_not_saturate_with_avx2_alone(
    runtime: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a processor with VNNI its instructions are kept from OpenVINO, in a process of its own."""
    few_thresholds(monkeypatch)
    _, quantized, rows = calibrated("ldm4_bedroom", W8A8)
    extreme(quantized)
    files = [tmp_path / name for name in ("quantized.safetensors", "rows.npz", "eps.npy")]
    save_quantized(quantized, files[0], tiny("ldm4_bedroom").architecture, W8A8, {})
    loud = Rows({**rows.tensors, "latents": rows.latents * 10})
    np.savez(files[1], **{name: tensor.numpy() for name, tensor in loud.tensors.items()})
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    subprocess.run([sys.executable, "-c", PREDICT, *files], env=environment, check=True)
    simulated = network_call(edadm.load(files[0]), loud)
    assert mean_difference(torch.from_numpy(np.load(files[2])), simulated) < 0.02 * simulated.std().item()


def test_where_openvino_is_absent_a_sentence_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.delitem(sys.modules, BACKENDS["openvino"].module, raising=False)
    sentence = (
        r"backend 'openvino' needs the package 'openvino'; install it with `pip install edadm\[openvino\]`"
    )
    with pytest.raises(EdadmError, match=f"^{sentence}$"):
        edadm.load(tmp_path / "absent.safetensors", backend="openvino")


def test_layers_with_an_input_grid_are_its_own(runtime: None, folded: nn.Module) -> None:
    backend = implementation(BACKENDS["openvino"])
    layers = quantized_layers(folded)
    assert [name for name, layer in layers.items() if not backend.runs(layer)] == ["conv_out"]
