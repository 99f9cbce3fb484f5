"""A quantized U-Net as an ONNX graph with QuantizeLinear/DequantizeLinear pairs, for onnxruntime, OpenVINO and TensorRT.

Every activation grid is a pair with its scale and zero point, every quantized weight an int8 initializer behind DequantizeLinear
with a scale per output channel and no zero points, with which OpenVINO computes in floating point (`deploy.integers`: a row that
would need 128 has a negative scale). How a runtime multiplies is its own affair. ONNX rounds half to even, as `quant.affine` does.
"""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int8
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.artifacts import writing
from edadm.deploy.integers import signed_weight
from edadm.errors import EdadmError
from edadm.models.unet import UNet
from edadm.nn.layers import QuantizedConv2d, QuantizedLayer
from edadm.nn.quantizer import Quantizer
from edadm.nn.surgery import activation_quantizers, quantized_layers

OPSET = 21
NIBBLE = 4


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
        codes = torch.onnx.ops.symbolic("QuantizeLinear", (x, self.scale, self.zero_point), dtype=torch.uint8, shape=x.shape)
        return torch.onnx.ops.symbolic("DequantizeLinear", (codes, self.scale, self.zero_point), dtype=torch.float32, shape=x.shape)


class _Segment(nn.Module):
    """What a layer multiplies one segment of its input channels with."""

    integers: Tensor
    scale: Tensor

    def __init__(self, pair: _Pair | None, weight: Int8[Tensor, "rows c *s"], scale: Float[Tensor, " rows"]):
        super().__init__()
        self.pair = pair
        self.register_buffer("integers", weight)
        self.register_buffer("scale", scale)

    def operands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Input and weight as values, each behind its nodes."""
        shape = self.integers.shape
        weight = torch.onnx.ops.symbolic("DequantizeLinear", (self.integers, self.scale), {"axis": 0}, dtype=torch.float32, shape=shape)
        return (x if self.pair is None else self.pair(x)), weight


class _ExportedLayer(nn.Module):
    """A layer as nodes; one with several segments is a sum over slices of the input channels. With `int4`, weights of 4 bits fit that."""

    def __init__(self, layer: QuantizedLayer, int4: bool):
        super().__init__()
        self.sizes = layer.channel_sizes
        grid = layer.input_quantizer
        pairs = [None if grid is None else _Pair(grid, index) for index in range(len(self.sizes))]
        self.segments: Any = nn.ModuleList(
            map(_Segment, pairs, *signed_weight(layer, NIBBLE if int4 and layer.weight_quantizer.bits <= NIBBLE else 8))
        )
        self.bias = layer.bias
        self.geometry: Any = (layer.stride, layer.padding, layer.dilation, layer.groups) if isinstance(layer, QuantizedConv2d) else None

    def _product(self, operands: tuple[Tensor, Tensor], bias: Tensor | None) -> Tensor:
        return F.linear(*operands, bias) if self.geometry is None else F.conv2d(*operands, bias, *self.geometry)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        inputs = x.split(self.sizes, 1) if len(self.sizes) > 1 else (x,)
        first, *others = tuple(segment.operands(part) for segment, part in zip(self.segments, inputs, strict=True))
        output = self._product(first, self.bias)
        for operands in others:
            output = output + self._product(operands, None)
        return output


class _Exported(nn.Module):
    """The network with tensors in and out, as the graph has them."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet

    def forward(self, sample: Tensor, timestep: Tensor, context: Tensor | None = None) -> Tensor:
        condition = () if context is None else (context,)
        return self.unet(sample, timestep, *condition, return_dict=False)[0]


def export_graph(unet: UNet, attention: bool, int4: bool = False) -> nn.Module:
    """A copy of a quantized U-Net whose quantizers and layers are ONNX nodes; it computes nothing, it is for `torch.onnx.export`."""
    replaced: dict[int, Any] = {id(parameter): parameter for parameter in unet.parameters()}
    layers = quantized_layers(unet)
    for name, quantizer in activation_quantizers(unet).items():
        if name.rpartition(".")[0] not in layers:
            replaced[id(quantizer)] = _Pair(quantizer, 0) if attention else nn.Identity()
    replaced |= {id(layer): _ExportedLayer(layer, int4) for layer in layers.values()}
    return _Exported(copy.deepcopy(unet, replaced))


def _narrow(model: Any) -> None:
    """Weights that fit into int4 become that, two to a byte; all int8 constants of the graph are weights."""
    import ml_dtypes
    import onnx_ir

    for value in model.graph.initializers.values():
        integers = value.const_value.numpy()
        if integers.dtype == np.int8 and integers.min() >= -(2 ** (NIBBLE - 1)) and integers.max() < 2 ** (NIBBLE - 1):
            value.const_value = onnx_ir.Tensor(integers.astype(ml_dtypes.int4), name=value.name)
            value.type = onnx_ir.TensorType(onnx_ir.DataType.INT4)


def export_onnx(unet: UNet, path: Path, attention: bool = True, int4: bool = False) -> None:
    """Writes a quantized U-Net as one ONNX file of opset 21.

    Inputs `sample` (n, c, h, w) fp32, `timestep` (n,) int64 and, where the network takes a condition, `context` (n, k, e) fp32;
    output `eps`. n and k are free.

    Args:
        unet: from `edadm.deploy.checkpoint.load_quantized`.
        path: the file to write.
        attention: whether query, key, value and attention weights are put on their grids, as the quantized model has them; without,
            runtimes can fuse attention, and outputs differ.
        int4: weights of at most 4 bits are stored as int4, two to a byte, instead of int8.

    Raises:
        EdadmError: onnx or onnxscript is not installed.
    """
    if absent := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]:
        raise EdadmError(f"writing ONNX needs the package '{absent[0]}'; install it with `pip install edadm[onnx]`")
    size, channels = unet.config["sample_size"], unet.config.get("cross_attention_dim")
    example = [torch.zeros(2, unet.config["in_channels"], size, size), torch.zeros(2, dtype=torch.long)]
    names = ["sample", "timestep"]
    free = [{0: torch.export.Dim("n")}, {0: torch.export.Dim("n")}]
    if channels is not None:
        example.append(torch.zeros(2, 3, channels))
        names.append("context")
        free.append({0: torch.export.Dim("n"), 1: torch.export.Dim("k")})
    program: Any = torch.onnx.export(
        export_graph(unet, attention, int4).eval(),
        tuple(example),
        dynamo=True,
        opset_version=OPSET,
        input_names=names,
        output_names=["eps"],
        dynamic_shapes=tuple(free),
        optimize=True,
        verbose=False,
    )
    if int4:
        _narrow(program.model)
    with writing(path) as partial:
        program.save(partial, external_data=False)
