"""Quantized networks in diffusers' folders, alone and inside a pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DModel
from diffusers.utils import logging
from torch import Tensor

import edadm
from edadm.deploy.diffusers import WEIGHTS, QuantizedUNet2DConditionModel, QuantizedUNet2DModel
from edadm.errors import EdadmError
from edadm.networks.families import network_call
from edadm.networks.weights import CheckpointError

from .conftest import Family

logging.set_verbosity_error()
Calibration = tuple[Tensor, Tensor]


@torch.no_grad()
def test_a_folder_comes_back_with_the_same_bytes_and_outputs(
    saved: Path, calibration: Calibration, tmp_path: Path
) -> None:
    unet = edadm.load(saved)
    unet.save_pretrained(tmp_path / "folder")
    assert {entry.name for entry in (tmp_path / "folder").iterdir()} == {"config.json", WEIGHTS}
    assert (tmp_path / "folder" / WEIGHTS).read_bytes() == saved.read_bytes()
    for loaded in (
        QuantizedUNet2DModel.from_pretrained(tmp_path / "folder"),
        edadm.load(tmp_path / "folder"),
    ):
        assert isinstance(loaded, UNet2DModel)
        assert torch.equal(loaded(*calibration).sample, unet(*calibration).sample)
        assert loaded.to_json_string() == unet.to_json_string()


@torch.no_grad()
def test_a_network_with_a_context_comes_back_too(
    quantized_family: Callable[[str, Path], Family], tmp_path: Path
) -> None:
    _, quantized, rows = quantized_family("sd14_coco", tmp_path / "quantized.safetensors")
    edadm.load(tmp_path / "quantized.safetensors").save_pretrained(tmp_path / "pipeline" / "unet")
    loaded = QuantizedUNet2DConditionModel.from_pretrained(
        tmp_path / "pipeline", subfolder="unet", torch_dtype=torch.float32
    )
    assert isinstance(loaded, QuantizedUNet2DConditionModel)
    assert torch.equal(network_call(loaded, rows), network_call(quantized, rows))
    assert torch.equal(network_call(edadm.load(tmp_path / "pipeline"), rows), network_call(quantized, rows))


@torch.no_grad()
def test_a_whole_pipeline_is_saved_and_loaded_with_its_codes(
    saved: Path, calibration: Calibration, tmp_path: Path
) -> None:
    unet = edadm.load(saved)
    DDIMPipeline(unet, DDIMScheduler(num_train_timesteps=77)).save_pretrained(tmp_path)
    assert (tmp_path / "unet" / WEIGHTS).stat().st_size == saved.stat().st_size
    pipeline = DDIMPipeline.from_pretrained(tmp_path)
    assert isinstance(pipeline.unet, QuantizedUNet2DModel)
    assert torch.equal(pipeline.unet(*calibration).sample, unet(*calibration).sample)


def test_diffusers_alone_refuses_the_folder_instead_of_guessing(saved: Path, tmp_path: Path) -> None:
    edadm.load(saved).save_pretrained(tmp_path)
    assert (
        json.loads((tmp_path / "config.json").read_text())["quantization_config"]["quant_method"] == "edadm"
    )
    with pytest.raises(ValueError, match="Unknown quantization type, got edadm"):
        UNet2DModel.from_pretrained(tmp_path)


@pytest.mark.parametrize("back_and_forth", [False, True])
def test_what_is_no_longer_whole_is_not_saved(back_and_forth: bool, saved: Path, tmp_path: Path) -> None:
    unet = edadm.load(saved).half().float() if back_and_forth else edadm.load(saved, dtype=torch.bfloat16)
    with pytest.raises(
        EdadmError, match=r"has lost bits of its biases; load it with dtype=torch\.float32 to save it"
    ):
        unet.save_pretrained(tmp_path / "half")
    assert not (tmp_path / "half").exists()


def test_folders_elsewhere_and_device_maps_are_refused(saved: Path, tmp_path: Path) -> None:
    edadm.load(saved).save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match="there is no folder somebody/model on this machine; download it first"
    ):
        QuantizedUNet2DModel.from_pretrained("somebody/model")
    with pytest.raises(EdadmError, match=r"leave out device_map, and call \.to\(device\)"):
        QuantizedUNet2DModel.from_pretrained(tmp_path, device_map="auto")
