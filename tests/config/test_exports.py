"""What an export is refused for before anything is imported."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from edadm.config.exports import ONNX, RUNTIMES, refuse_export, refuse_without_onnx
from edadm.deploy.export.onnx import TARGETS
from edadm.errors import EdadmError


def test_forms_of_onnx_are_those_that_are_written() -> None:
    assert tuple(TARGETS) == ONNX
    assert {f"onnx_{runtime}" for runtime in RUNTIMES} < set(ONNX)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (("gguf", None, None), "there is no format 'gguf'; known are diffusers, comfy, onnx, "),
        (("onnx", None, "ncnn"), "there is no target 'ncnn'; known are onnxruntime, openvino, tensorrt"),
        (("comfy", "fp8", None), "there is no precision 'fp8'; known are fp16, bf16, fp32"),
        (("comfy", None, "openvino"), "--target openvino is a form of ONNX; name --format onnx with it"),
        (("onnx_int4", "fp16", None), "an ONNX graph holds integers and fp32; leave out the precision"),
    ],
)
def test_what_cannot_be_is_refused(asked: tuple[str, str | None, str | None], sentence: str) -> None:
    with pytest.raises(EdadmError, match=sentence):
        refuse_export(Path("new"), *asked)


def test_an_output_that_is_there_stays(tmp_path: Path) -> None:
    with pytest.raises(EdadmError, match="is there already; remove it, or name another output"):
        refuse_export(tmp_path, "diffusers", "bf16", None)
    refuse_export(tmp_path / "new", "diffusers", "bf16", None)


def test_without_a_package_that_writes_it_onnx_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)
    with pytest.raises(
        EdadmError, match=r"needs the package 'onnxscript'; install it with `pip install edadm"
    ):
        refuse_without_onnx()
