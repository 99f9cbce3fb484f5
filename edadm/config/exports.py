"""What an export may be asked for; imports no torch, so that a mistake is said at once."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from edadm.errors import EdadmError

ONNX = (
    "onnx",
    "onnx_int4",
    "onnx_float_attention",
    "onnx_vnni",
    "onnx_7bit",
    "onnx_uint8",
    "onnx_onnxruntime",
    "onnx_openvino",
    "onnx_tensorrt",
)
FORMATS = ("diffusers", "comfy", *ONNX)
RUNTIMES = ("onnxruntime", "openvino", "tensorrt")  # of which each has a form of ONNX of its own
PRECISIONS = ("fp16", "bf16", "fp32")


def refuse_export(output: Path, target: str, precision: str | None, runtime: str | None) -> None:
    """Refuses an export that cannot be, whatever the checkpoint holds.

    Args:
        output: the folder or file to write; it must not be there.
        target: one of `FORMATS`.
        precision: one of `PRECISIONS`, of what is in floating point, and not of ONNX.
        runtime: one of `RUNTIMES`, of ONNX alone.

    Raises:
        EdadmError: no such format, precision or runtime, a precision with ONNX, a runtime with another
            format, or an output that is there.
    """
    for kind, name, known in (
        ("format", target, FORMATS),
        ("target", runtime or RUNTIMES[0], RUNTIMES),
        ("precision", precision or PRECISIONS[0], PRECISIONS),
    ):
        if name not in known:
            raise EdadmError(f"there is no {kind} '{name}'; known are {', '.join(known)}")
    if output.exists():
        raise EdadmError(f"{output} is there already; remove it, or name another output")
    if runtime is not None and target != "onnx":
        raise EdadmError(f"--target {runtime} is a form of ONNX; name --format onnx with it, or leave it out")
    if precision is not None and target in ONNX:
        raise EdadmError("an ONNX graph holds integers and fp32; leave out the precision")


def refuse_without_onnx() -> None:
    """Refuses to write ONNX where the packages that do it are absent.

    Raises:
        EdadmError: onnx or onnxscript is not installed.
    """
    if absent := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]:
        raise EdadmError(
            f"writing ONNX needs the package '{absent[0]}'; install it with `pip install edadm[onnx]`"
        )
