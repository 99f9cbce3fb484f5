"""Quantized U-Nets by `from_pretrained` of diffusers' own classes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel, UNet2DModel
from diffusers.models import modeling_utils
from diffusers.pipelines import pipeline_utils
from diffusers.quantizers import auto
from diffusers.utils import is_accelerate_available

import edadm
from edadm.deploy import quantizer
from edadm.deploy.diffusers import WEIGHTS, QuantizedUNet2DConditionModel, QuantizedUNet2DModel
from edadm.errors import EdadmError
from edadm.networks.families import network_call
from edadm.registration import register

from .conftest import Family, Made, output

HERE = str(Path(__file__).parents[2])
SCRIPT = """
import sys
import edadm
print("torch" in sys.modules)
from diffusers.quantizers.auto import DiffusersAutoQuantizer
found = DiffusersAutoQuantizer.from_config({"quant_method": "edadm", "bits": None})
print(type(found).__name__, found.quantization_config.quant_method.value)
"""

PIPELINE = """
import sys
for name in sys.argv[2:]:
    __import__(name)
from diffusers import DiffusionPipeline
print(type(DiffusionPipeline.from_pretrained(sys.argv[1]).unet).__name__)
"""


@pytest.fixture
def accelerated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The little of accelerate that diffusers needs to load a quantized network, where it is not installed."""
    if not is_accelerate_available():
        empty = SimpleNamespace(init_empty_weights=lambda: torch.device("meta"))
        monkeypatch.setattr(modeling_utils, "accelerate", empty, raising=False)
        for module in (modeling_utils, pipeline_utils, quantizer):
            monkeypatch.setattr(module, "is_accelerate_available", lambda: True)


def test_importing_the_package_registers_it_with_what_is_imported_later() -> None:
    environment = os.environ | {"PYTHONPATH": HERE}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout.splitlines() == ["False", "EdadmQuantizer edadm"], done.stderr


def test_importing_the_package_registers_it_with_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AUTO_QUANTIZER_MAPPING", "AUTO_QUANTIZATION_CONFIG_MAPPING"):
        monkeypatch.setattr(auto, name, {"sdnq": object})
    register()
    assert auto.AUTO_QUANTIZER_MAPPING["edadm"] is quantizer.EdadmQuantizer
    assert auto.AUTO_QUANTIZATION_CONFIG_MAPPING["edadm"] is quantizer.EdadmConfig
    theirs = auto.AUTO_QUANTIZER_MAPPING["edadm"] = object()
    register()
    assert auto.AUTO_QUANTIZER_MAPPING["edadm"] is theirs


@pytest.mark.parametrize(
    "imported",
    [("edadm", "diffusers"), pytest.param(("diffusers.pipelines", "edadm"), marks=pytest.mark.long)],
)
def test_a_pipeline_that_names_a_class_of_this_package_needs_it_imported_and_nothing_more(
    imported: tuple[str, ...], saved: Path, tmp_path: Path
) -> None:
    DDIMPipeline(edadm.load(saved), DDIMScheduler()).save_pretrained(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PIPELINE, str(tmp_path), *imported],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": HERE},
    )
    assert done.stdout.splitlines() == ["QuantizedUNet2DModel"], done.stderr


@pytest.mark.usefixtures("accelerated")
@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_a_folder_is_loaded_by_the_library_as_by_this_package(
    dtype: torch.dtype | None, made: Made, tmp_path: Path
) -> None:
    expected = edadm.load(made[1], dtype=dtype or torch.float32)
    edadm.load(made[1]).save_pretrained(tmp_path)
    unet, lists = UNet2DConditionModel.from_pretrained(tmp_path, torch_dtype=dtype, output_loading_info=True)
    assert type(unet) is QuantizedUNet2DConditionModel
    assert not any(lists.values())
    rows = {
        name: rows.to(expected.dtype) if rows.is_floating_point() else rows for name, rows in made[2].items()
    }
    assert torch.equal(output(unet, rows), output(expected, rows))
    if dtype is None:
        unet.save_pretrained(tmp_path / "again")
        assert (tmp_path / "again" / WEIGHTS).read_bytes() == made[1].read_bytes()
        config = json.loads((tmp_path / "again" / "config.json").read_text())
        assert config["quantization_config"]["quant_method"] == "edadm"
        half = unet.half()
        assert torch.equal(
            output(half, _half(made)), output(edadm.load(made[1], dtype="float16"), _half(made))
        )


def _half(made: Made) -> dict[str, torch.Tensor]:
    return {name: rows.half() if rows.is_floating_point() else rows for name, rows in made[2].items()}


@pytest.mark.usefixtures("accelerated")
@pytest.mark.parametrize("family", ["ldm8_church", "ldm4_imagenet"])
def test_networks_of_each_family_are_loaded(
    family: str, quantized_family: Callable[[str, Path], Family], tmp_path: Path
) -> None:
    _, quantized, rows = quantized_family(family, tmp_path / "file.safetensors")
    edadm.load(tmp_path / "file.safetensors").save_pretrained(tmp_path / "folder")
    library: Any = UNet2DConditionModel if "context" in rows.tensors else UNet2DModel
    with torch.no_grad():
        assert torch.equal(
            network_call(library.from_pretrained(tmp_path / "folder"), rows), network_call(quantized, rows)
        )


@pytest.mark.usefixtures("accelerated")
def test_a_pipeline_may_name_the_class_of_the_library(saved: Path, tmp_path: Path) -> None:
    unet = edadm.load(saved)
    DDIMPipeline(unet, DDIMScheduler()).save_pretrained(tmp_path)
    index = tmp_path / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {"unet": ["diffusers", "UNet2DModel"]}))
    pipeline = DiffusionPipeline.from_pretrained(tmp_path)
    assert type(pipeline.unet) is QuantizedUNet2DModel
    x, t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([9, 700])
    with torch.no_grad():
        assert torch.equal(pipeline.unet(x, t).sample, unet(x, t).sample)


@pytest.mark.usefixtures("accelerated")
def test_a_folder_may_name_its_backend(saved: Path, tmp_path: Path) -> None:
    edadm.load(saved).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] |= {"backend": "integer", "of_later": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert UNet2DModel.from_pretrained(tmp_path).backend == "integer"


@pytest.mark.usefixtures("accelerated")
def test_what_diffusers_cannot_do_with_it_is_refused(saved: Path, tmp_path: Path) -> None:
    edadm.load(saved).save_pretrained(tmp_path / "q")
    UNet2DModel(sample_size=8, block_out_channels=[8, 8], norm_num_groups=4, layers_per_block=1,
        down_block_types=["DownBlock2D"] * 2, up_block_types=["UpBlock2D"] * 2).save_pretrained(tmp_path / "f")  # fmt: skip
    with pytest.raises(EdadmError, match="diffusers does not quantize with edadm"):
        UNet2DModel.from_pretrained(tmp_path / "f", quantization_config=quantizer.EdadmConfig())
    with pytest.raises(EdadmError, match=r"cannot be spread over devices; leave out device_map"):
        UNet2DModel.from_pretrained(tmp_path / "q", device_map="balanced")
    with pytest.raises(EdadmError, match="edadm export FILE"):
        UNet2DModel.from_pretrained(tmp_path / "q").dequantize()


@pytest.mark.usefixtures("accelerated")
def test_a_file_of_another_kind_of_network_is_refused(saved: Path, made: Made, tmp_path: Path) -> None:
    edadm.load(made[1]).save_pretrained(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(saved.read_bytes())
    with pytest.raises(
        EdadmError, match=r"holds another kind of U-Net \(QuantizedUNet2DModel\) than UNet2DCond"
    ):
        UNet2DConditionModel.from_pretrained(tmp_path)


def test_without_accelerate_a_sentence_says_what_to_do(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edadm.load(saved).save_pretrained(tmp_path)
    monkeypatch.setattr(quantizer, "is_accelerate_available", lambda: False)
    with pytest.raises(EdadmError, match=r"`pip install accelerate`, or load the folder with edadm\.load"):
        UNet2DModel.from_pretrained(tmp_path)
