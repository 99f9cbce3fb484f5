"""Checkpoints for people who do not have this package."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import edadm
from edadm.deploy.checkpoint import read_metadata
from edadm.deploy.diffusers import WEIGHTS
from edadm.deploy.export.formats import export
from edadm.errors import EdadmError
from edadm.networks.families import network_call
from edadm.nn.insert import disabled

from ..conftest import Family

PLAIN = """
import sys
sys.modules["edadm"] = None  # whoever imports it fails
import torch
from diffusers import UNet2DModel
from safetensors.torch import load_file, save_file
unet, rows = UNet2DModel.from_pretrained(sys.argv[1]), load_file(sys.argv[2])
with torch.no_grad():
    save_file({"eps": unet(rows["x"], rows["t"]).sample.contiguous()}, sys.argv[3])
"""


def test_plain_diffusers_computes_what_the_quantized_weights_do(
    folded: nn.Module, saved: Path, calibration: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    export(saved, tmp_path / "plain", "diffusers", "fp32")
    rows, output = tmp_path / "rows.safetensors", tmp_path / "eps.safetensors"
    save_file(dict(zip("xt", calibration, strict=True)), rows)
    subprocess.run(
        [sys.executable, "-c", PLAIN, tmp_path / "plain", rows, output], check=True, capture_output=True
    )
    found = load_file(output)["eps"]
    with torch.no_grad(), disabled(folded):
        expected = folded(*calibration).sample
    assert (found - expected).abs().max() < 1e-5
    assert (found - folded(*calibration).sample).abs().max() > 1e-3


def test_a_folder_that_save_pretrained_wrote_stands_for_the_file_in_it(saved: Path, tmp_path: Path) -> None:
    edadm.load(saved).save_pretrained(tmp_path / "pipeline" / "unet")
    export(tmp_path / "pipeline", tmp_path / "plain", "diffusers")
    export(saved, tmp_path / "of_file", "diffusers")
    assert (tmp_path / "plain" / WEIGHTS).read_bytes() == (tmp_path / "of_file" / WEIGHTS).read_bytes()
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        EdadmError, match=r"the folder .*/empty holds no diffusion_pytorch_model\.safetensors"
    ):
        export(tmp_path / "empty", tmp_path / "other", "diffusers")
    with pytest.raises(EdadmError, match=r"/unet is a folder; name the checkpoint in it"):
        read_metadata(tmp_path / "pipeline" / "unet")


def test_a_network_with_a_context_in_half_precision(
    quantized_family: Callable[[str, Path], Family], tmp_path: Path
) -> None:
    _, quantized, rows = quantized_family("ldm4_imagenet", tmp_path / "quantized.safetensors")
    export(tmp_path / "quantized.safetensors", tmp_path / "plain", "diffusers", "bf16")
    weights = load_file(tmp_path / "plain" / WEIGHTS)
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    plain = UNet2DConditionModel.from_pretrained(tmp_path / "plain", torch_dtype=torch.float32)
    with torch.no_grad(), disabled(quantized):
        expected, found = network_call(quantized, rows), network_call(plain, rows)
    assert 0 < (found - expected).abs().max() < 0.1 * expected.abs().max()


def test_heads_that_no_diffusers_configuration_describes_are_refused(
    quantized_family: Callable[[str, Path], Family], tmp_path: Path
) -> None:
    quantized_family("ldm8_church", tmp_path / "quantized.safetensors")
    with pytest.raises(EdadmError, match=r"has no setting for 4 heads at every level.*use edadm\.load"):
        export(tmp_path / "quantized.safetensors", tmp_path / "plain", "diffusers", "fp16")
    assert not (tmp_path / "plain").exists()


def test_unknown_formats_and_precisions_and_folders_that_are_there_are_refused(
    saved: Path, tmp_path: Path
) -> None:
    with pytest.raises(EdadmError, match="there is no format 'gguf'; known are diffusers"):
        export(saved, tmp_path / "plain", "gguf", "fp16")
    with pytest.raises(EdadmError, match="there is no precision 'fp8'; known are fp16, bf16, fp32"):
        export(saved, tmp_path / "plain", "diffusers", "fp8")
    for target in ("diffusers", "onnx"):
        with pytest.raises(EdadmError, match="is there already; remove it, or name another output"):
            export(saved, tmp_path, target)
    with pytest.raises(EdadmError, match="an ONNX graph holds integers and fp32; leave out the precision"):
        export(saved, tmp_path / "unet.onnx", "onnx", "bf16")
    with pytest.raises(EdadmError, match="no target 'tflite'; known are onnxruntime, openvino, tensorrt"):
        export(saved, tmp_path / "unet.onnx", "onnx", runtime="tflite")
    with pytest.raises(EdadmError, match="--target tensorrt is a form of ONNX; name --format onnx"):
        export(saved, tmp_path / "plain", "diffusers", runtime="tensorrt")
