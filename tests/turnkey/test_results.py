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
from edadm.config.load import load_config
from edadm.config.schema import Bits, Model
from edadm.deploy.checkpoint import save_quantized
from edadm.deploy.diffusers import WEIGHTS, QuantizedDiTTransformer2DModel, QuantizedUNet2DModel
from edadm.deploy.grids import quantized_copy
from edadm.networks.build import build_network
from edadm.nn.insert import activation_quantizers, quantized_layers
from edadm.passes.ranges import cover_weights
from edadm.turnkey.results import parts_of, write_folder

from ..networks.dit import described, write_pipeline
from ..networks.families import random_network


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


def test_the_transformer_of_a_pipeline_is_its_packed_one_and_what_was_lost_comes_back(tmp_path: Path) -> None:
    pipeline, made, packed = tmp_path / "pipeline", tmp_path / "w4a8", tmp_path / "quantized.safetensors"
    write_pipeline(pipeline)
    architecture, bits = described(pipeline).architecture, load_config().bits["dit_w4a8"]
    quantized = quantized_copy(random_network(build_network(architecture), 1), bits)
    for layer in quantized_layers(quantized).values():
        cover_weights(layer)
        layer.set_codes(layer.nearest_codes())
    for quantizer in activation_quantizers(quantized).values():
        quantizer.set_grid(torch.full_like(quantizer.scale, 0.1), torch.full_like(quantizer.zero_point, 128))
    save_quantized(quantized, packed, architecture, bits, {})
    write_folder(pipeline, packed, made)
    assert not (made / "unet").exists()
    assert isinstance(DiffusionPipeline.from_pretrained(made).transformer, QuantizedDiTTransformer2DModel)
    lost = made / "vae" / "config.json"
    lost.unlink()
    write_folder(pipeline, packed, made)
    assert lost.read_bytes() == (pipeline / "vae" / "config.json").read_bytes()


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
