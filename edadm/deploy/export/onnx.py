"""A quantized U-Net as an ONNX file, for onnxruntime and OpenVINO.

`deploy.export.onnx_graph` says what is in it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edadm.artifacts import writing
from edadm.config.backends import INTEGER
from edadm.config.exports import refuse_without_onnx
from edadm.console import progress_bar
from edadm.deploy.export.onnx_capture import translated
from edadm.deploy.export.onnx_graph import IMAGE, Target, export_graph, replacements
from edadm.deploy.export.onnx_leaves import Leaf
from edadm.deploy.export.onnx_weights import NIBBLE
from edadm.errors import EdadmError
from edadm.networks.families import family_of
from edadm.networks.family import Network
from edadm.networks.inputs import MASK, WHOLE

LARGEST = 2**31  # bytes of a protobuf message, which a file is
TOKENS = 3  # of an example, whose number is no constant of the graph
OUTPUT = "out_sample"
_UNWRITTEN = {  # networks that are given inputs of these names, or of these families
    "labels": "embeds classes by itself (DiT)",
    "mmdit": "has two streams of tokens (Stable Diffusion 3)",
    MASK: "is told a text with a mask (PixArt)",
}
_NAMES = {"latents": "sample", "timesteps": "timestep", "context": "encoder_hidden_states"}
_NAMES |= {"pooled": "text_embeds"}  # what inputs are called where optimum's pipelines look for them
_AXES = {"latents": {0: "batch_size", 2: "height", 3: "width"}, "timesteps": {}}
_AXES |= {"context": {0: "batch_size", 1: "sequence_length"}}

TARGETS = {
    "onnx": Target(),
    "onnx_int4": Target(int4=True),
    "onnx_float_attention": Target(attention=False),
    "onnx_vnni": Target(form="full"),
    "onnx_7bit": Target(form="seven"),
    "onnx_uint8": Target(form="unsigned"),
    "onnx_onnxruntime": Target(form="whole_convolutions"),
    "onnx_openvino": Target(),
    "onnx_tensorrt": Target(form="full", symmetric=True),
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


def _example(unet: Network) -> tuple[dict[str, Tensor], dict[str, dict[int, str]]]:
    """Inputs by the network's names, and the free axes of each.

    Sides are multiples of the network's own that are unlike each other, so that nothing takes them for
    constants. An image behind the noise is part of it.
    """
    example, free = {}, {}
    tensors = dict(family_of(unet).inputs(unet).zeros(2).tensors)
    if IMAGE in tensors:
        tensors["latents"] = torch.cat([tensors["latents"], tensors.pop(IMAGE)], dim=1)
    for name, tensor in tensors.items():
        axes = dict(_AXES.get(name, {0: "batch_size"}))
        if name == "context":
            tensor = tensor.repeat(1, TOKENS, 1)
        if 2 in axes:
            tensor = tensor.repeat(1, 1, 2, 3)
        elif name in WHOLE:  # diffusers' schedulers have fractions, SDXL's scores, too
            tensor = tensor.float()
        if name == "timesteps":
            tensor = tensor[0]
        example[name], free[name] = tensor, axes
    return example, free


def onnx_program(
    unet: Network,
    target: Target = TARGETS["onnx"],
    advance: Callable[[int], None] = lambda count: None,
) -> Any:
    """A quantized U-Net as a `torch.onnx.ONNXProgram` of opset 21, in memory.

    Names are those of optimum's diffusion pipelines: inputs `sample` (n, c, h, w) fp32, with the channels of
    an image behind those of the noise where the network is given one, `timestep` () fp32
    and, where the network takes them, `encoder_hidden_states` (n, k, e), `text_embeds` (n, e) and `time_ids`
    (n, 6), all fp32, and what else its family names; output `out_sample`. n, k, h and w are free; h and w
    as far as the network can halve them.

    Args:
        unet: from `edadm.deploy.checkpoint.load_quantized`.
        target: what the program is for.
        advance: told 1 whenever a leaf, of `replacements`, has been traced, and again when it is written.

    Raises:
        EdadmError: onnx or onnxscript is not installed; the network is too large for the format, embeds
            classes, has two streams, or is given a mask; or as `replacements`.
    """
    family = family_of(unet)
    given = (family.name, *family.inputs(unet).shapes)
    if what := next((what for name, what in _UNWRITTEN.items() if name in given), None):
        raise EdadmError(
            f"a network that {what} is not written as ONNX; take --format diffusers, or the quantized "
            "file itself"
        )
    refuse_without_onnx()
    example, free = _example(unet)
    graph = export_graph(unet, target).eval()
    _refuse_too_large(_stored_bytes(graph, target))
    program = translated(graph, list(example.values()), [list(axes) for axes in free.values()], advance)
    axes = [({**free[name]}, input_name(name)) for name in example]
    _name(program.model.graph, axes)
    if target.int4:
        _narrow(program.model)
    _refuse_too_large(sum(value.const_value.nbytes for value in program.model.graph.initializers.values()))
    return program


def _name(graph: Any, inputs: list[tuple[dict[int, str], str]]) -> None:
    """Gives inputs, free axes and the output their names, and takes away what says where nodes came from.

    Symbols of sizes between inputs and output are gone, too: runtimes find them again.
    """
    import onnx_ir

    for value, (axes, name) in zip(graph.inputs, inputs, strict=True):
        value.name = name
        value.shape = onnx_ir.Shape([axes.get(axis, size) for axis, size in enumerate(value.shape)])
    (output,) = graph.outputs
    free, _ = inputs[0]
    shape = onnx_ir.Shape([free.get(axis, size) for axis, size in enumerate(output.shape)])
    for node in graph.all_nodes():
        node.metadata_props.clear()  # lines of this program that led to it, with the paths of this machine
        for value in node.outputs:
            value.shape = None
    output.name, output.shape = OUTPUT, shape


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


def export_onnx(unet: Network, path: Path, target: Target = TARGETS["onnx"]) -> None:
    """Writes a quantized U-Net as one ONNX file; see `onnx_program`.

    Args:
        unet: from `edadm.deploy.checkpoint.load_quantized`.
        path: the file to write.
        target: what the file is for.

    Raises:
        EdadmError: as `onnx_program`.
    """
    count = sum(isinstance(module, Leaf) for module in replacements(unet, target).values())
    with progress_bar("export", 2 * count, "layers, traced and written") as advance:
        program = onnx_program(unet, target, advance=advance)
    with writing(path) as partial:
        program.save(partial, external_data=False)
