"""Modules that stand for those of a quantized U-Net in an ONNX graph of quantizing nodes.

Every activation grid is a pair with its scale and zero point (in the exact form those of attention that begin
at zero, as that of its weights does, are arithmetic, see `_Rounded`), every quantized weight integers behind
DequantizeLinear with a positive scale per output channel, in a form of `deploy.export.onnx_weights`; without
zero points, with which OpenVINO computes in floating point. How a runtime multiplies is its own affair. ONNX
rounds half to even, as `quant.affine` does.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.deploy.export.onnx_weights import Form, StoredWeight, stored_weight
from edadm.deploy.int_weight import signed_weight
from edadm.networks.families import family_of, network_call
from edadm.networks.inputs import Rows
from edadm.networks.unet.base import UNet
from edadm.nn.insert import activation_quantizers, quantized_layers
from edadm.nn.layers import QuantizedConv2d, QuantizedLayer
from edadm.nn.quantizer import Quantizer

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


class _Pair(nn.Module):
    """One activation grid as a pair of QuantizeLinear and DequantizeLinear.

    Activations of fewer than 8 bits are clipped to the grid's range first, since uint8 reaches further.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, grid: Quantizer, index: int):
        super().__init__()
        scale, zero_point = grid.scale[index].float(), grid.zero_point[index]
        self.register_buffer("scale", scale.clone())
        self.register_buffer("zero_point", zero_point.to(torch.uint8))
        low, high = (torch.stack([-zero_point, 2**grid.bits - 1 - zero_point]) * scale).tolist()
        self.range: tuple[float, float] | None = None if grid.bits == 8 else (low, high)

    def forward(self, x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        if self.range is not None:
            x = x.clamp(*self.range)
        codes = torch.onnx.ops.symbolic(
            "QuantizeLinear", (x, self.scale, self.zero_point), dtype=torch.uint8, shape=x.shape
        )
        return torch.onnx.ops.symbolic(
            "DequantizeLinear", (codes, self.scale, self.zero_point), dtype=torch.float32, shape=x.shape
        )


class _Rounded(nn.Module):
    """One activation grid as arithmetic, so that the product behind it is computed in fp32.

    Behind pairs, OpenVINO multiplies an operand of attention that begins at zero (its weights do) as uint8
    with another one as int8, and cuts sums of two products off where the processor has no VNNI; neither is a
    constant that could be divided. With other zero points sums were exact.
    """

    scale: Tensor

    def __init__(self, grid: Quantizer):
        super().__init__()
        self.register_buffer("scale", grid.scale[0].float().clone())
        low = -grid.zero_point[0].item()
        self.codes = low, low + 2**grid.bits - 1

    def forward(self, x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        return (x / self.scale).round().clamp(*self.codes) * self.scale


class _Segment(nn.Module):
    """One segment of a layer's input channels, with its weight, or two weights whose products are added."""

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
        """The integers of the weight, or of both weights."""
        return [buffer for name, buffer in self.named_buffers(recurse=False) if name.startswith("integers")]

    def operands(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Pairs of input and weight as values, each behind its nodes."""
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
        self.smooth: Tensor | None
        of_channels = layer.smooth
        if of_channels is not None:
            of_channels = of_channels.float().reshape(-1, *[1] * (layer.weight.dim() - 2))
        self.register_buffer("smooth", of_channels)
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
        """A vector with a number per row of the weight, in the shape that broadcasts over the output."""
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
        x = x if self.smooth is None else x / self.smooth
        inputs = x.split(self.sizes, 1) if len(self.sizes) > 1 else (x,)
        output = self._sum(self.segments[0], inputs[0], self.bias)
        for segment, part in zip(self.segments[1:], inputs[1:], strict=True):
            output = output + self._sum(segment, part, None)
        return output


class _Exported(nn.Module):
    """A network with tensors in and out, as the graph has them."""

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet
        self.names = tuple(family_of(unet).inputs(unet).shapes)

    def forward(self, sample: Tensor, timestep: Tensor, *told: Tensor) -> Tensor:
        return network_call(self.unet, Rows(dict(zip(self.names, (sample, timestep, *told), strict=True))))


def replacements(network: nn.Module, target: Target) -> dict[int, nn.Module]:
    """The modules of nodes that stand for a network's layers and attention's quantizers, by `id` of these."""
    layers = quantized_layers(network)
    found: dict[int, nn.Module] = {id(layer): _ExportedLayer(layer, target) for layer in layers.values()}
    for name, quantizer in activation_quantizers(network).items():
        if name.rpartition(".")[0] in layers:
            continue
        if not target.attention:
            found[id(quantizer)] = nn.Identity()
        elif target.form == "exact" and quantizer.zero_point[0] == 0:
            found[id(quantizer)] = _Rounded(quantizer)
        else:
            found[id(quantizer)] = _Pair(quantizer, 0)
    return found


def export_graph(unet: UNet, target: Target = Target()) -> nn.Module:
    """A copy of a quantized U-Net whose quantizers and layers are ONNX nodes.

    It computes nothing, it is for `torch.onnx.export`. It takes the network's inputs in the order in which
    its family lists them.
    """
    kept: dict[int, Any] = {id(parameter): parameter for parameter in unet.parameters()}
    return _Exported(copy.deepcopy(unet, kept | replacements(unet, target)))
