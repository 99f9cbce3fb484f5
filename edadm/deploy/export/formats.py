"""Quantized checkpoints for programs that know nothing of this package."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from edadm.artifacts import writing
from edadm.config.exports import refuse_export
from edadm.deploy.checkpoint import load_quantized, read_metadata
from edadm.deploy.diffusers import WEIGHTS
from edadm.deploy.export.comfy import to_comfy
from edadm.deploy.export.onnx import TARGETS, export_onnx
from edadm.deploy.load import checkpoint_in
from edadm.errors import EdadmError
from edadm.networks.build import build_network
from edadm.networks.layouts.dit import POSITIONS
from edadm.networks.settings.architecture import Architecture
from edadm.nn.insert import quantized_layers

_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


def to_diffusers(path: Path, folder: Path, dtype: torch.dtype) -> None:
    """A folder that plain diffusers loads: `config.json`, and the values of all codes as float weights.

    Weights keep their learned rounding, to the precision of `dtype`; activations are not quantized any more,
    and so outputs are those of weight quantization alone. In fp16 the file is twice (W8) or four times (W4)
    as large.

    Args:
        path: the quantized checkpoint.
        folder: is made.
        dtype: of all tensors.

    Raises:
        CheckpointError: as `edadm.load`.
        EdadmError: diffusers' configuration cannot describe the network.
    """
    architecture = Architecture.model_validate(read_metadata(path)["architecture"])
    if architecture.family == "ldm" and architecture.heads:
        raise EdadmError(
            f"diffusers' UNet2DModel has no setting for {architecture.heads} heads at every level, so that "
            f"{path} would compute something "
            "else there; use edadm.load"
        )
    unet = load_quantized(path)
    tensors = {name: tensor.detach() for name, tensor in unet.named_parameters()}
    tensors |= {f"{name}.weight": layer.unsmoothed_weight for name, layer in quantized_layers(unet).items()}
    weights = {name: tensor.to(dtype).contiguous() for name, tensor in tensors.items()}
    with torch.device("meta"):
        plain = build_network(architecture)
    assert weights.keys() == plain.state_dict().keys()
    if architecture.places is None:
        weights.pop(POSITIONS, None)  # which diffusers computes
    plain.save_config(folder)
    with writing(folder / WEIGHTS) as partial:
        save_file(weights, partial, {"format": "pt"})


def export(
    path: Path, output: Path, target: str, precision: str | None = None, runtime: str | None = None
) -> None:
    """Writes a quantized checkpoint in another format.

    Args:
        path: the quantized checkpoint, or a folder with one, as of `edadm.load`.
        output: the folder or file to write; it must not be there.
        target: one of `config.exports.FORMATS`; those of ONNX are in `deploy.export.onnx.TARGETS`.
        precision: one of `PRECISIONS` there, of what is in floating point, and not of ONNX; fp16 if None.
        runtime: one of `RUNTIMES` there, for which an ONNX file is meant.

    Raises:
        EdadmError: as `refuse_export`, and what the format's function raises.
    """
    refuse_export(output, target, precision, runtime)
    path = checkpoint_in(path)
    if target in ("diffusers", "comfy"):
        write = to_diffusers if target == "diffusers" else to_comfy
        write(path, output, _DTYPES[precision or "fp16"])
        return
    export_onnx(load_quantized(path), output, TARGETS[f"onnx_{runtime}" if runtime else target])
