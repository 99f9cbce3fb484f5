"""The folder for diffusers: the whole pipeline with the packed network, and lines on where all is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DiffusionPipeline, UNet2DModel
from torch import nn

import edadm
from edadm.config.schema import Bits, Model
from edadm.deploy.checkpoint import save_quantized
from edadm.deploy.diffusers import WEIGHTS, QuantizedUNet2DModel
from edadm.nn.insert import quantized_layers
from edadm.turnkey.results import parts_of, write_folder


@pytest.fixture
def packed(gridded: Callable[[], nn.Module], model: Model, bits: Bits, tmp_path: Path) -> Path:
    """A quantized checkpoint, rounded to nearest."""
    unet = gridded()
    for layer in quantized_layers(unet).values():
        layer.set_codes(layer.nearest_codes())
    path = tmp_path / "results" / "quantized.safetensors"
    save_quantized(unet, path, model.architecture, bits, {})
    return path


def test_the_pipeline_comes_back_with_the_packed_network_and_draws(
    packed: Path, float_unet: UNet2DModel, tmp_path: Path
) -> None:
    pipeline, made = tmp_path / "pipé line", tmp_path / "w4 a8"
    DDIMPipeline(float_unet, DDIMScheduler()).save_pretrained(pipeline)
    before = {file: file.read_bytes() for file in pipeline.rglob("*") if file.is_file()}
    write_folder(pipeline, packed, made)
    assert {file: file.read_bytes() for file in pipeline.rglob("*") if file.is_file()} == before
    assert (made / "unet" / WEIGHTS).read_bytes() == packed.read_bytes()
    loaded = DiffusionPipeline.from_pretrained(made)
    assert isinstance(loaded, DDIMPipeline)
    assert isinstance(loaded.unet, QuantizedUNet2DModel)
    loaded.set_progress_bar_config(disable=True)

    def drawn(unet: nn.Module) -> torch.Tensor:
        own = DDIMPipeline(unet, DDIMScheduler())
        own.set_progress_bar_config(disable=True)
        noise = torch.Generator().manual_seed(1)
        return torch.from_numpy(own(generator=noise, num_inference_steps=2, output_type="np").images)

    assert torch.equal(drawn(loaded.unet), drawn(edadm.load(packed)))
    assert not torch.equal(drawn(loaded.unet), drawn(float_unet))
    written = (made / "model_index.json").stat().st_mtime_ns
    write_folder(pipeline, packed, made)
    assert (made / "model_index.json").stat().st_mtime_ns == written


def test_without_a_pipeline_the_network_s_own_folder_is_written(packed: Path, tmp_path: Path) -> None:
    write_folder(None, packed, tmp_path / "w4a8")
    assert {file.name for file in (tmp_path / "w4a8").iterdir()} == {"config.json", WEIGHTS}


def test_parts_are_those_that_the_index_names(tmp_path: Path) -> None:
    names = ("unet/x.safetensors", "vae/x.safetensors", "vae/x.bin", "vae/config.json", "text_encoder/x.bin")
    for name in (*names, "onnx/x.onnx", "whole.ckpt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    index = {"_class_name": "X", "unet": [], "vae": [], "text_encoder": [], "safety_checker": [], "..": []}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    found = {str(file.relative_to(tmp_path)) for file in parts_of(tmp_path)}
    assert found == {"model_index.json", "text_encoder/x.bin", "vae/config.json", "vae/x.safetensors"}
    assert list(parts_of(None)) == []
