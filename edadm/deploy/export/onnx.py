"""A quantized U-Net as an ONNX graph with QuantizeLinear/DequantizeLinear pairs, for onnxruntime and OpenVINO.

Every activation grid is a pair with its scale and zero point, every quantized weight integers behind
DequantizeLinear with a positive scale per output channel, in a form of `deploy.export.onnx_weights`; without zero
points, with which OpenVINO computes in floating point. How a runtime multiplies is its own affair. ONNX
rounds half to even, as `quant.affine` does.
"""

from __future__ import annotations

import copy
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.artifacts import writing
from edadm.deploy.export.onnx_weights import NIBBLE, Form, StoredWeight, stored_weight
from edadm.deploy.int_weight import signed_weight
from edadm.errors import EdadmError
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows
from edadm.networks.unet.base import UNet
from edadm.nn.insert import activation_quantizers, quantized_layers
from edadm.nn.layers import QuantizedConv2d, QuantizedLayer
from edadm.nn.quantizer import Quantizer

OPSET = 21
NIBBLE_BITS = 4


@dataclass(frozen=True)
class Target:
    """What a file is for.

    Args:
        form: of weights; `exact` computes the same on any processor.
        int4: weights of at most 4 bits are stored as int4, two to a byte, instead of int8.
        attention: whether query, key, value and attention weights are put on their grids, as the quantized
            model has them; without, runtimes can fuse attention, and outputs differ.
    """

    form: Form = "exact"
    int4: bool = False
    attention: bool = True


TARGETS = {
    "onnx": Target(),
    "onnx_int4": Target(int4=True),
    "onnx_float_attention": Target(attention=False),
    "onnx_vnni": Target(form="full"),
    "onnx_7bit": Target(form="seven"),
    "onnx_uint8": Target(form="unsigned"),
}


class _Pair(nn.Module):
    """One activation grid. Activations of fewer than 8 bits are clipped to the grid's ends first, since uint8 reaches further."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, grid: Quantizer, index: int):
        super().__init__()
        scale, zero_point = grid.scale[index].float(), grid.zero_point[index]
        self.register_buffer("scale", scale.clone())
        self.register_buffer("zero_point", zero_point.to(torch.uint8))
        ends = torch.stack([-zero_point, 2**grid.bits - 1 - zero_point]) * scale
        self.ends: tuple[float, float] | None = None if grid.bits == 8 else (ends[0].item(), ends[1].item())

    def forward(self, x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        if self.ends is not None:
            x = x.clamp(*self.ends)
        codes = torch.onnx.ops.symbolic(
            "QuantizeLinear", (x, self.scale, self.zero_point), dtype=torch.uint8, shape=x.shape
        )
        return torch.onnx.ops.symbolic(
            "DequantizeLinear", (codes, self.scale, self.zero_point), dtype=torch.float32, shape=x.shape
        )


class _Segment(nn.Module):
    """What a layer multiplies one segment of its input channels with: a weight, or two whose products are added."""

    scale: Tensor
    sign: Tensor | None
    zero_point: Tensor | None

    def __init__(self, pair: _Pair | None, weight: StoredWeight):
        super().__init__()
        self.pair = pair
        for index, part in enumerate(weight.parts):
            self.register_buffer(f"integers_{index}", part)
        self.register_buffer("scale", weight.scale)
        self.register_buffer("sign", weight.sign)
        self.register_buffer("zero_point", weight.zero_point)

    @property
    def parts(self) -> list[Tensor]:
        """Integers of the weight."""
        return [buffer for name, buffer in self.named_buffers(recurse=False) if name.startswith("integers")]

    def operands(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Input and weights as values, each behind its nodes."""
        x = x if self.pair is None else self.pair(x)
        grid = (self.scale,) if self.zero_point is None else (self.scale, self.zero_point)
        nodes = []
        for part in self.parts:
            values = torch.onnx.ops.symbolic(
                "DequantizeLinear", (part, *grid), {"axis": 0}, dtype=torch.float32, shape=part.shape
            )
            nodes.append((x, values))
        return nodes


class _ExportedLayer(nn.Module):
    """A layer as nodes; one with several segments is a sum over slices of the input channels."""

    def __init__(self, layer: QuantizedLayer, target: Target):
        super().__init__()
        self.sizes = layer.channel_sizes
        grid, int4 = layer.input_quantizer, target.int4 and layer.weight_quantizer.bits <= NIBBLE_BITS
        self.segments: Any = nn.ModuleList()
        for index, (weight, scale) in enumerate(zip(*signed_weight(layer), strict=True)):
            pair, largest = (None, 0) if grid is None else (_Pair(grid, index), 2**grid.bits - 1)
            self.segments.append(_Segment(pair, stored_weight(weight, scale, largest, target.form, int4)))
        self.bias = layer.bias
        self.geometry: Any = (
            (layer.stride, layer.padding, layer.dilation, layer.groups)
            if isinstance(layer, QuantizedConv2d)
            else None
        )

    def _product(self, operands: tuple[Tensor, Tensor], bias: Tensor | None) -> Tensor:
        return (
            F.linear(*operands, bias) if self.geometry is None else F.conv2d(*operands, bias, *self.geometry)
        )

    def _of_rows(self, vector: Tensor) -> Tensor:
        """A number of each row, in the shape in which the output takes it."""
        return vector if self.geometry is None else vector.reshape(-1, 1, 1)

    def _sum(self, segment: _Segment, x: Tensor, bias: Tensor | None) -> Tensor:
        first, *others = segment.operands(x)
        output = self._product(first, bias if segment.sign is None else None)
        for operands in others:
            output = output + self._product(operands, None)
        if segment.sign is None:
            return output
        output = output * self._of_rows(segment.sign)
        return output if bias is None else output + self._of_rows(bias)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        inputs = x.split(self.sizes, 1) if len(self.sizes) > 1 else (x,)
        output = self._sum(self.segments[0], inputs[0], self.bias)
        for segment, part in zip(self.segments[1:], inputs[1:], strict=True):
            output = output + self._sum(segment, part, None)
        return output


class _Exported(nn.Module):
    """The network with tensors in and out, as the graph has them."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor | None = None) -> Tensor:
        rows = {"latents": sample, "timesteps": timestep}
        return network_call(self.unet, Rows(rows if context is None else rows | {"context": context}))


def export_graph(unet: UNet, target: Target = Target()) -> nn.Module:
    """A copy of a quantized U-Net whose quantizers and layers are ONNX nodes; it computes nothing, it is for `torch.onnx.export`."""
    replaced: dict[int, Any] = {id(parameter): parameter for parameter in unet.parameters()}
    layers = quantized_layers(unet)
    for name, quantizer in activation_quantizers(unet).items():
        if name.rpartition(".")[0] not in layers:
            replaced[id(quantizer)] = _Pair(quantizer, 0) if target.attention else nn.Identity()
    replaced |= {id(layer): _ExportedLayer(layer, target) for layer in layers.values()}
    return _Exported(copy.deepcopy(unet, replaced))


def _narrow(model: Any) -> None:
    """Weights that fit into int4 become that, two to a byte; all int8 constants of the graph are weights."""
    import ml_dtypes
    import onnx_ir

    for value in model.graph.initializers.values():
        integers = value.const_value.numpy()
        if integers.dtype == np.int8 and integers.min() >= -NIBBLE and integers.max() < NIBBLE:
            value.const_value = onnx_ir.Tensor(integers.astype(ml_dtypes.int4), name=value.name)
            value.type = onnx_ir.TensorType(onnx_ir.DataType.INT4)


def export_onnx(unet: UNet, path: Path, target: Target = Target()) -> None:
    """Writes a quantized U-Net as one ONNX file of opset 21.

    Inputs `sample` (n, c, h, w) fp32, `timestep` (n,) int64 and, where the network takes a condition,
    `context` (n, k, e) fp32; output `eps`. n and k are free.

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
    size, channels = unet.config["sample_size"], unet.config.get("cross_attention_dim")
    example = [torch.zeros(2, unet.config["in_channels"], size, size), torch.zeros(2, dtype=torch.long)]
    names = ["sample", "timestep"]
    free = [{0: torch.export.Dim("n")}, {0: torch.export.Dim("n")}]
    if channels is not None:
        example.append(torch.zeros(2, 3, channels))
        names.append("context")
        free.append({0: torch.export.Dim("n"), 1: torch.export.Dim("k")})
    program: Any = torch.onnx.export(
        export_graph(unet, target).eval(),
        tuple(example),
        dynamo=True,
        opset_version=OPSET,
        input_names=names,
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
