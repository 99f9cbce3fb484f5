"""A quantized U-Net as an ONNX file, for onnxruntime and OpenVINO.

`deploy.export.onnx_graph` says what is in it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edadm.artifacts import writing
from edadm.config.backends import INTEGER
from edadm.deploy.export.onnx_graph import Target, export_graph
from edadm.deploy.export.onnx_weights import NIBBLE
from edadm.errors import EdadmError
from edadm.networks.families import family_of
from edadm.networks.unet.base import UNet

OPSET = 21
LARGEST = 2**31  # bytes of a protobuf message, which a file is
TOKENS = 3  # of an example, whose number is no constant of the graph
_NAMES = {"latents": "sample", "timesteps": "timestep"}  # of inputs that diffusers calls otherwise

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


def input_name(name: str) -> str:
    """What an input of a network (`edadm.networks.inputs`) is called in its graph."""
    return _NAMES.get(name, name)


def _example(unet: UNet) -> tuple[dict[str, Tensor], tuple[Any, ...]]:
    """Inputs by name, and the free axes of each: the number of rows, and of tokens where rows hold some.

    The axes are nested as the arguments of `export_graph`'s module are.
    """
    rows, tokens = torch.export.Dim("n"), torch.export.Dim("k")
    example, free = {}, []
    for name, tensor in family_of(unet).inputs(unet).zeros(2).tensors.items():
        is_sequence = tensor.dim() == 3
        example[name] = tensor.repeat(1, TOKENS, 1) if is_sequence else tensor
        free.append({0: rows, 1: tokens} if is_sequence else {0: rows})
    own, told = free[:2], free[2:]
    return example, (*own, tuple(told)) if told else tuple(own)


def onnx_program(unet: UNet, target: Target = TARGETS["onnx"]) -> Any:
    """A quantized U-Net as a `torch.onnx.ONNXProgram` of opset 21, in memory.

    Inputs `sample` (n, c, h, w) fp32, `timestep` (n,) int64 and, where the network takes a condition,
    `context` (n, k, e) fp32 and what else its family names; output `eps`. n and k are free.

    Args:
        unet: from `edadm.deploy.checkpoint.load_quantized`.
        target: what the program is for.

    Raises:
        EdadmError: onnx or onnxscript is not installed; the network is too large for the format.
    """
    if absent := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]:
        raise EdadmError(
            f"writing ONNX needs the package '{absent[0]}'; install it with `pip install edadm[onnx]`"
        )
    example, free = _example(unet)
    graph = export_graph(unet, target).eval()
    _refuse_too_large(_stored_bytes(graph, target))
    program: Any = torch.onnx.export(
        graph,
        tuple(example.values()),
        dynamo=True,
        opset_version=OPSET,
        input_names=[input_name(name) for name in example],
        output_names=["eps"],
        dynamic_shapes=free,
        optimize=True,
        verbose=False,
    )
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # lines of this program that led to it, with the paths of this machine
    if target.int4:
        _narrow(program.model)
    _refuse_too_large(sum(value.const_value.nbytes for value in program.model.graph.initializers.values()))
    return program


def _stored_bytes(graph: nn.Module, target: Target) -> int:
    """Bytes of what a graph will store, known before the export, which takes minutes and as much memory."""
    total = 0
    for tensor in (*graph.parameters(), *graph.buffers()):
        is_narrow = target.int4 and tensor.dtype == torch.int8
        is_narrow = is_narrow and int(tensor.min()) >= -NIBBLE and int(tensor.max()) < NIBBLE
        total += -(-tensor.nbytes // 2) if is_narrow else tensor.nbytes
    return total


def _refuse_too_large(total: int) -> None:
    """Refuses so many bytes that they do not fit into one file.

    Raises:
        EdadmError: always then.
    """
    if total >= LARGEST:
        raise EdadmError(
            f"one ONNX file holds {LARGEST / 2**30:.3g} GiB, and the network has {total / 2**30:.3g}; "
            f"use backend '{INTEGER}', which needs no such file"
        )


def export_onnx(unet: UNet, path: Path, target: Target = TARGETS["onnx"]) -> None:
    """Writes a quantized U-Net as one ONNX file; see `onnx_program`.

    Args:
        unet: from `edadm.deploy.checkpoint.load_quantized`.
        path: the file to write.
        target: what the file is for.

    Raises:
        EdadmError: as `onnx_program`.
    """
    program = onnx_program(unet, target)
    with writing(path) as partial:
        program.save(partial, external_data=False)
