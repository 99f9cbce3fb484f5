"""Checkpoints and pipelines that earlier code wrote are read for ever; `files/README.md` says which code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMPipeline
from safetensors.torch import load_file
from torch import Tensor, nn

import edadm
from edadm.artifacts import intact
from edadm.deploy.checkpoint import read_metadata
from edadm.deploy.diffusers import QuantizedUNet2DModel
from edadm.networks.described.told import lines_on
from edadm.quant.scheme import from_table

FILES = Path(__file__).parent / "files"
NEAR = 0.01  # other processors round other numbers up; the prediction's standard deviation is 0.52


@torch.no_grad()
def prediction(network: nn.Module) -> Tensor:
    """What a network says of two rows."""
    rows = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)
    return network(rows, torch.tensor([9, 700])).sample


@pytest.fixture(scope="module")
def stated() -> Tensor:
    """What each network said when it was written."""
    return torch.from_numpy(np.load(FILES / "prediction.npy"))


@pytest.mark.parametrize(("name", "version"), [("format_1", 1), ("format_2", 2), ("format_3", 3)])
def test_a_checkpoint_of_each_format_predicts_what_it_did_when_it_was_written(
    name: str, version: int, stated: Tensor
) -> None:
    path = FILES / f"{name}.safetensors"
    assert read_metadata(path)["format_version"] == version
    found = prediction(edadm.load(path))
    assert (found - stated).abs().mean() < NEAR
    assert prediction(edadm.load(path, backend="integer")).sub(stated).abs().mean() < 5 * NEAR


def test_a_pipeline_saved_by_the_first_version_that_could_is_loaded(stated: Tensor) -> None:
    pipeline = DDIMPipeline.from_pretrained(FILES / "pipeline")
    assert isinstance(pipeline.unet, QuantizedUNet2DModel)
    for network in (pipeline.unet, edadm.load(FILES / "pipeline"), edadm.load(FILES / "pipeline" / "unet")):
        assert (prediction(network) - stated).abs().mean() < NEAR


def test_formats_2_and_3_differ_in_nothing_but_the_description_of_schemes() -> None:
    second, third = (FILES / f"format_{version}.safetensors" for version in (2, 3))
    facts, others = read_metadata(second), read_metadata(third)
    assert {name for name in facts | others if facts.get(name) != others.get(name)} == {
        *("format_version", "sha256", "weights", "activations", "schemes", "sites")
    }
    widths = {name: layer[0] for name, layer in facts["weights"].items()}
    schemes = from_table(others)
    assert widths == {name: schemes[f"{name}.weight"].scheme.format.bits for name in widths}
    tensors, same = load_file(second), load_file(third)
    assert tensors.keys() == same.keys()
    assert all(torch.equal(tensors[name], same[name]) for name in tensors)


@pytest.mark.parametrize("version", [2, 3])
def test_files_of_both_formats_are_whole_and_told_alike(version: int) -> None:
    path = FILES / f"format_{version}.safetensors"
    told = lines_on(path)
    assert f"  what it is: a quantized U-Net of edadm (format {version}, written by edadm 0.2.0)" in told
    assert "  layers: 51 quantized; weights of 4 bits in 49, 8 bits in 2" in told
    assert "  layers of other bits: conv_out, time_embedding.linear_1" in told
    intact(path)


def test_what_is_saved_again_predicts_the_same(stated: Tensor, tmp_path: Path) -> None:
    network = edadm.load(FILES / "format_1.safetensors")
    network.save_pretrained(tmp_path)
    assert torch.equal(prediction(edadm.load(tmp_path)), prediction(network))
