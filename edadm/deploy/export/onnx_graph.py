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
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from edadm.deploy.export.onnx_leaves import Leaf, NormLeaf, constant, operators
from edadm.deploy.export.onnx_weights import Form, StoredWeight, stored_weight
from edadm.deploy.int_weight import signed_weight
from edadm.errors import EdadmError
from edadm.networks.families import family_of, network_call
from edadm.networks.family import Network
from edadm.networks.inputs import Rows
from edadm.nn.insert import activation_quantizers, quantized_layers, transformed_layers
from edadm.nn.layers import QuantizedConv2d, QuantizedLayer
from edadm.nn.quantizer import Quantizer

IMAGE = "image"  # the input that diffusers joins to the noise

NIBBLE_BITS = 4
HALF = 2**7  # codes of a grid from 0 to 255, minus this, are int8


@dataclass(frozen=True)
class Target:
    """What a file is for.

    Args:
        form: of weights; `exact` computes the same on any processor.
        int4: weights of at most 4 bits are stored as int4, two to a byte, instead of int8.
        attention: whether query, key, value and attention weights are put on their grids, as the quantized
            model has them; without, runtimes can fuse attention, and outputs differ.
        symmetric: whether all integers are int8 with zero point 0, as TensorRT takes them; values are the
            same, see `_Pair`.
    """

    form: Form = "exact"
    int4: bool = False
    attention: bool = True
    symmetric: bool = False


class _Pair(Leaf):
    """One activation grid as a pair of QuantizeLinear and DequantizeLinear.

    Activations of fewer than 8 bits are clipped to the grid's range first, since uint8 reaches further. A
    symmetric pair gives values that lie `offset` below those of the grid, so that its codes are int8 around
    0; whoever multiplies them adds the product of `offset`.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, grid: Quantizer, index: int, symmetric: bool = False):
        super().__init__()
        scale, zero_point = grid.scale[index].float(), grid.zero_point[index]
        shift = HALF if symmetric else 0
        self.register_buffer("scale", scale.clone())
        codes = torch.zeros_like(zero_point) if symmetric else zero_point
        self.register_buffer("zero_point", codes.to(torch.int8 if symmetric else torch.uint8))
        self.offset = (shift - int(zero_point)) * float(scale) if symmetric else 0.0
        low, high = (torch.stack([-zero_point, 2**grid.bits - 1 - zero_point]) * scale).tolist()
        self.range: tuple[float, float] | None = None if grid.bits == 8 else (low, high)

    def write(self, x: Any, pads: tuple[int, ...] = ()) -> Any:
        """The nodes behind `x`, which is padded with zeros as ONNX's Pad is told to by `pads`."""
        op = operators()
        if self.range is not None:
            x = op.Clip(x, *(constant(torch.tensor(end)) for end in self.range))
        if self.offset:
            x = op.Sub(x, constant(torch.tensor(self.offset)))
        if any(pads):
            x = op.Pad(x, constant(torch.tensor(pads)), constant(torch.tensor(-self.offset)))
        grid = constant(self.scale), constant(self.zero_point)
        return op.DequantizeLinear(op.QuantizeLinear(x, *grid), *grid)


class _Rounded(Leaf):
    """One activation grid as arithmetic, so that the product behind it is computed in fp32.

    Behind pairs, OpenVINO multiplies an operand of attention that begins at zero (its weights do) as uint8
    with another one as int8, and cuts sums of two products off where the processor has no VNNI; neither is a
    constant that could be divided. With other zero points sums were exact. TensorRT takes none of these.
    """

    scale: Tensor

    def __init__(self, grid: Quantizer):
        super().__init__()
        self.register_buffer("scale", grid.scale[0].float().clone())
        low = -grid.zero_point[0].item()
        self.codes = low, low + 2**grid.bits - 1

    def write(self, x: Any) -> Any:
        op = operators()
        low, high = (constant(torch.tensor(float(code))) for code in self.codes)
        return op.Mul(op.Clip(op.Round(op.Div(x, constant(self.scale))), low, high), constant(self.scale))


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

    def added(self, bias: Tensor | None) -> Tensor | None:
        """What is added to each row of the products: the bias, and the product of the pair's offset."""
        if self.pair is None or not self.pair.offset:
            return bias
        sums = torch.stack([part.double().flatten(1).sum(1) for part in self.parts]).sum(0)
        if self.zero_point is not None:
            sums = sums - self.zero_point.double() * self.parts[0][0].numel()
        signed = self.scale.double() * (1 if self.sign is None else self.sign.double())
        product = (sums * signed * self.pair.offset).float()
        return product if bias is None else product + bias


class _ExportedLayer(Leaf):
    """A layer as nodes; one with several segments is a sum over slices of the input channels."""

    def __init__(self, layer: QuantizedLayer, target: Target):
        super().__init__()
        self.sizes = layer.channel_sizes
        grid, int4 = layer.input_quantizer, target.int4 and layer.weight_quantizer.bits <= NIBBLE_BITS
        self.segments: Any = nn.ModuleList()
        for index, (weight, scale) in enumerate(zip(*signed_weight(layer), strict=True)):
            pair, largest = (
                (None, 0) if grid is None else (_Pair(grid, index, target.symmetric), 2**grid.bits - 1)
            )
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

    def shape(self, x: Tensor) -> list[Any]:
        """The sizes of the output."""
        weight = self.segments[0].parts[0]
        if self.geometry is None:
            return [*x.shape[:-1], len(weight)]
        stride, padding, dilation, _ = self.geometry
        sides = zip(x.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
        return [
            x.shape[0],
            len(weight),
            *((side + 2 * pad - far * (width - 1) - 1) // step + 1 for side, width, step, pad, far in sides),
        ]

    def write(self, x: Any) -> Any:
        """The nodes of the layer behind `x`."""
        op = operators()
        if self.smooth is not None:
            x = op.Div(x, constant(self.smooth))
        ends = list(accumulate(self.sizes))
        total = None
        for index, (segment, size, end) in enumerate(zip(self.segments, self.sizes, ends, strict=True)):
            bounds = (constant(torch.tensor([number])) for number in (end - size, end, 1))
            part = op.Slice(x, *bounds) if len(ends) > 1 else x
            output = self._written(segment, part, segment.added(None if index else self.bias))
            total = output if total is None else op.Add(total, output)
        return total

    def _written(self, segment: _Segment, x: Any, added: Tensor | None) -> Any:
        """The nodes of a segment, which adds a number to each of its rows."""
        op = operators()
        pads: tuple[int, ...] = ()
        if self.geometry is not None and segment.pair is not None and segment.pair.offset:
            pads = (0, 0, *self.geometry[1]) * 2
        if segment.pair is not None:
            x = segment.pair.write(x, pads)
        first, *others = segment.parts
        inside = self.geometry is not None and segment.sign is None
        output = self._product(segment, first, x, added if inside else None, any(pads))
        for part in others:
            output = op.Add(output, self._product(segment, part, x, None, any(pads)))
        if segment.sign is not None:
            output = op.Mul(output, self._of_rows(segment.sign))
        return output if inside or added is None else op.Add(output, self._of_rows(added))

    def _product(self, segment: _Segment, part: Tensor, x: Any, added: Tensor | None, padded: bool) -> Any:
        """The product of an input with the values of one weight; those of linear layers lie transposed."""
        op, is_linear = operators(), self.geometry is None
        grid = [constant(segment.scale)]
        if segment.zero_point is not None:
            grid.append(constant(segment.zero_point))
        integers = constant(part.t().contiguous() if is_linear else part)
        values = op.DequantizeLinear(integers, *grid, axis=int(is_linear))
        if is_linear:
            return op.MatMul(x, values)
        stride, padding, dilation, groups = self.geometry
        pads = [0] * 4 if padded else [*padding, *padding]
        bias = [] if added is None else [constant(added)]
        return op.Conv(
            x, values, *bias, strides=list(stride), pads=pads, dilations=list(dilation), group=groups
        )

    def _of_rows(self, vector: Tensor) -> Any:
        """A constant with a number per row of the weight, that broadcasts over the output."""
        return constant(vector.float() if self.geometry is None else vector.float().reshape(-1, 1, 1))


class _Exported(nn.Module):
    """A network with tensors in and out, as the graph has them.

    An image that it is given behind the noise is in `sample`, as diffusers' pipelines have it.
    """

    def __init__(self, unet: nn.Module):
        super().__init__()
        self.unet = unet
        shapes = family_of(unet).inputs(unet).shapes
        self.joined = {name: shapes[name][0] for name in ("latents", IMAGE) if name in shapes}
        self.names = tuple(name for name in shapes if name not in self.joined)

    def forward(self, sample: Tensor, timestep: Tensor, *told: Tensor) -> Tensor:
        if timestep.dim() == 0:
            timestep = timestep.expand(sample.shape[0])
        parts = sample.split(list(self.joined.values()), dim=1) if IMAGE in self.joined else [sample]
        given = dict(zip(self.joined, parts, strict=True))
        others = dict(zip(self.names, (timestep, *told), strict=True))
        return network_call(self.unet, Rows(given | others))


def replacements(network: nn.Module, target: Target) -> dict[int, nn.Module]:
    """The modules of nodes that stand for a network's own, by `id` of these.

    That are its layers, attention's quantizers and norms of groups; dropout, which does nothing, is gone.

    Raises:
        EdadmError: a layer has a scheme that there are no nodes for.
    """
    if other := next(iter(transformed_layers(network)), None):
        raise EdadmError(
            f"{other} is rotated, has a branch or a grid of each token, which is not written as ONNX; take "
            "--format diffusers, or the quantized file itself"
        )
    layers = quantized_layers(network)
    found: dict[int, nn.Module] = {id(layer): _ExportedLayer(layer, target) for layer in layers.values()}
    for name, quantizer in activation_quantizers(network).items():
        if name.rpartition(".")[0] in layers:
            continue
        starts_at_zero = target.form == "exact" and quantizer.zero_point[0] == 0
        if not target.attention:
            found[id(quantizer)] = nn.Identity()
        elif starts_at_zero or target.symmetric:
            found[id(quantizer)] = _Rounded(quantizer)
        else:
            found[id(quantizer)] = _Pair(quantizer, 0)
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            found[id(module)] = NormLeaf(module)
        elif isinstance(module, nn.Dropout):
            found[id(module)] = nn.Identity()
    return found


def export_graph(unet: Network, target: Target = Target()) -> nn.Module:
    """A copy of a quantized U-Net whose quantizers, layers and norms are ONNX nodes.

    It computes nothing, it is for `torch.onnx.export`. It takes the network's inputs in the order in which
    its family lists them.
    """
    kept: dict[int, Any] = {id(parameter): parameter for parameter in unet.parameters()}
    return _Exported(copy.deepcopy(unet, kept | replacements(unet, target)))
