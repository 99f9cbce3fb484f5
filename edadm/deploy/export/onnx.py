"""A quantized U-Net as an ONNX file, for onnxruntime and OpenVINO.

`deploy.export.onnx_graph` says what is in it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edadm.artifacts import writing
from edadm.deploy.export.onnx_graph import Target, export_graph
from edadm.deploy.export.onnx_weights import NIBBLE
from edadm.errors import EdadmError
from edadm.networks.families import family_of
from edadm.networks.unet.base import UNet

OPSET = 21
_NAMES = {"latents": "sample", "timesteps": "timestep"}  # of inputs, as diffusers has them

TARGETS = {
    "onnx": Target(),
    "onnx_int4": Target(int4=True),
    "onnx_float_attention": Target(attention=False),
    "onnx_vnni": Target(form="full"),
    "onnx_7bit": Target(form="seven"),
    "onnx_uint8": Target(form="unsigned"),
}


def _narrow(model: Any) -> None:
    """Weights that fit into int4 become that, two to a byte; all int8 constants of the graph are weights."""
    import ml_dtypes
    import onnx_ir

    for value in model.graph.initializers.values():
        integers = value.const_value.numpy()
        if integers.dtype == np.int8 and integers.min() >= -NIBBLE and integers.max() < NIBBLE:
            value.const_value = onnx_ir.Tensor(integers.astype(ml_dtypes.int4), name=value.name)
            value.type = onnx_ir.TensorType(onnx_ir.DataType.INT4)


def export_onnx(unet: UNet, path: Path, target: Target = TARGETS["onnx"]) -> None:
    """Writes a quantized U-Net as one ONNX file of opset 21.

    Inputs `sample` (n, c, h, w) fp32, `timestep` (n,) int64 and, where the network takes a condition,
    `context` (n, k, e) fp32 and whatever else it is told, by its name; output `eps`. n and k are free.

    Args:
        unet: from `edadm.deploy.checkpoint.load_quantized`.
        path: the file to write.
        target: what the file is for.

    Raises:
        EdadmError: onnx or onnxscript is not installed.
    """
    if absent := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]:
        raise EdadmError(
            f"writing ONNX needs the package '{absent[0]}'; install it with `pip install edadm[onnx]`"
        )
    example = family_of(unet).inputs(unet).zeros(2).tensors
    tokens = {"context": torch.zeros(2, 3, example["context"].shape[-1])} if "context" in example else {}
    example = {**example, **tokens}
    free = [{0: torch.export.Dim("n")} for _ in example]
    if tokens:
        free[list(example).index("context")][1] = torch.export.Dim("k")
    program: Any = torch.onnx.export(
        export_graph(unet, target).eval(),
        tuple(example.values()),
        dynamo=True,
        opset_version=OPSET,
        input_names=[_NAMES.get(name, name) for name in example],
        output_names=["eps"],
        dynamic_shapes=tuple(free),
        optimize=True,
        verbose=False,
    )
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # lines of this program that led to it, with the paths of this machine
    if target.int4:
        _narrow(program.model)
    with writing(path) as partial:
        program.save(partial, external_data=False)
