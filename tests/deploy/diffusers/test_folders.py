"""Quantized networks in diffusers' folders, alone and inside a pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoModel, DDIMPipeline, DDIMScheduler, UNet2DModel
from diffusers.quantizers import auto
from diffusers.utils import logging
from torch import Tensor

import edadm
from edadm.deploy.diffusers import (
    WEIGHTS,
    QuantizedUNet,
    QuantizedUNet2DConditionModel,
    QuantizedUNet2DModel,
)
from edadm.errors import EdadmError
from edadm.networks.families import network_call
from edadm.networks.weights import CheckpointError

from ..conftest import Family, Made, output

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


def test_diffusers_alone_refuses_the_folder_instead_of_guessing(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(
        auto.AUTO_QUANTIZATION_CONFIG_MAPPING, "edadm"
    )  # as where this package is not imported
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


@pytest.fixture(scope="module")
def folder(networks: dict[str, QuantizedUNet], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Stable Diffusion U-Net in a folder of diffusers, to be left as it is."""
    networks["simulated"].save_pretrained(path := tmp_path_factory.mktemp("folder"))
    return path


def test_keywords_of_trainers_are_taken(
    made: Made, networks: dict[str, QuantizedUNet], tmp_path: Path
) -> None:
    unet = networks["simulated"]
    unet.save_pretrained(tmp_path / "other", is_main_process=False)
    assert not (tmp_path / "other").exists()
    unet.save_pretrained(
        tmp_path, is_main_process=True, safe_serialization=True, variant="fp16", max_shard_size="1GB"
    )
    file = tmp_path / "diffusion_pytorch_model.fp16.safetensors"
    assert file.read_bytes() == made[1].read_bytes()
    loaded, lists = QuantizedUNet2DConditionModel.from_pretrained(
        tmp_path, variant="fp16", output_loading_info=True, low_cpu_mem_usage=True, use_safetensors=True
    )
    assert torch.equal(output(loaded, made[2]), output(unet, made[2]))
    assert lists == {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}


def test_a_pipeline_that_is_saved_as_pickles_has_safetensors_of_a_quantized_network(
    made: Made, networks: dict[str, QuantizedUNet], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    networks["simulated"].save_pretrained(tmp_path, safe_serialization=False)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", WEIGHTS}
    assert (tmp_path / WEIGHTS).read_bytes() == made[1].read_bytes()
    assert "one kind of file, so this is safetensors, too" in capsys.readouterr().err


SAVING: dict[str, tuple[dict[str, Any], str]] = {
    "function": ({"save_function": torch.save}, "is saved as safetensors alone; leave out save_function"),
    "pack": ({"use_flashpack": True}, "is saved as safetensors alone"),
    "hub": ({"push_to_hub": True}, "nothing is sent to a hub from here; save the folder"),
    "shards": ({"max_shard_size": "10KB"}, r"here of \d+ bytes, more than max_shard_size; leave that out"),
    "size": ({"max_shard_size": "five"}, "max_shard_size is no size: 'five'"),
}
LOADING: dict[str, tuple[dict[str, Any], str]] = {
    "variant": ({"variant": "fp16"}, r"model\.fp16\.safetensors; leave out variant='fp16'"),
    "map": ({"device_map": {"": "cpu", "mid_block": 0}}, "leave out device_map"),
    "device": ({"device_map": "abacus"}, "this machine has no device 'abacus'"),
    "type": ({"torch_dtype": "float61"}, "a network cannot be in 'float61'"),
    "bytes": ({"dtype": torch.float8_e4m3fn}, "a network cannot be in torch.float8_e4m3fn"),
    "keyword": ({"quantization_config": {"a": 1}}, "is not loaded with quantization_config; leave it out"),
}


@pytest.mark.parametrize("case", SAVING)
def test_keywords_that_ask_for_other_files_are_refused(
    case: str, networks: dict[str, QuantizedUNet], tmp_path: Path
) -> None:
    named, words = SAVING[case]
    with pytest.raises(EdadmError, match=words):
        networks["simulated"].save_pretrained(tmp_path / "new", **named)
    assert not (tmp_path / "new").exists()


def test_a_file_is_no_folder(made: Made, networks: dict[str, QuantizedUNet]) -> None:
    with pytest.raises(EdadmError, match="is a file; name a folder"):
        networks["simulated"].save_pretrained(made[1])


@pytest.mark.parametrize("case", LOADING)
def test_keywords_that_ask_for_other_networks_are_refused(case: str, folder: Path) -> None:
    named, words = LOADING[case]
    with pytest.raises(EdadmError, match=words):
        QuantizedUNet2DConditionModel.from_pretrained(folder, **named)


def test_types_and_devices_may_be_named(made: Made, folder: Path) -> None:
    load = QuantizedUNet2DConditionModel.from_pretrained
    assert load(folder, dtype="float16").dtype == torch.float16
    assert load(folder, torch_dtype="torch.bfloat16", device_map={"": "cpu"}).dtype == torch.bfloat16
    assert edadm.load(made[1], dtype="auto").dtype == torch.float32
    assert load(folder, device_map="cpu").device == load(folder, device_map=torch.device("cpu")).device


def test_the_library_finds_the_class_that_a_folder_names(folder: Path) -> None:
    assert type(AutoModel.from_pretrained(str(folder))) is QuantizedUNet2DConditionModel


def test_a_network_that_is_measured_without_memory_is_made(
    made: Made, networks: dict[str, QuantizedUNet]
) -> None:
    with torch.device("meta"):
        empty = QuantizedUNet2DConditionModel.from_config(networks["simulated"].config).to(torch.float16)
    assert sum(parameter.numel() for parameter in empty.parameters()) == made[0].num_parameters()
    assert all(parameter.is_meta for parameter in empty.parameters())
