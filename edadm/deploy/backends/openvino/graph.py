"""A quantized U-Net as a graph of OpenVINO, from the operations that PyTorch records in one call of it.

Every grid of activations is a FakeQuantize, every quantized weight are integers times the scale of their row,
behind which OpenVINO multiplies bytes. Where the processor cuts sums of two products off at int16, a layer
that could reach it, and attention's operands that begin at zero, are put on their grids by arithmetic
instead: their products are computed in fp32, by the same numbers.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import openvino
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.deploy.export.onnx_weights import saturates, stored_weight
from edadm.deploy.int_weight import signed_weight
from edadm.networks.families import family_of, network_call
from edadm.networks.family import Network
from edadm.networks.inputs import Rows
from edadm.nn.insert import activation_quantizers, quantized_layers
from edadm.nn.layers import QuantizedConv2d, QuantizedLayer
from edadm.nn.quantizer import Quantizer

FREE = -1  # a size that the graph leaves open
_TOKENS = 3  # of the example, whose number is left open
_TOP = 255


class _Bytes(nn.Module):
    """A grid of activations as a node behind which products are of bytes."""

    def __init__(self, grid: Quantizer, index: int = 0):
        super().__init__()
        self.scale, self.zero_point = grid.scale[index].item(), int(grid.zero_point[index])
        low, high = -self.zero_point * self.scale, (2**grid.bits - 1 - self.zero_point) * self.scale
        self.range = None if grid.bits == 8 else (low, high)

    def forward(self, x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        x = x if self.range is None else x.clamp(*self.range)
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, 0, _TOP)


class _Rounded(nn.Module):
    """A grid of activations as arithmetic, behind which products are of floating-point numbers."""

    scale: Tensor

    def __init__(self, grid: Quantizer, index: int = 0):
        super().__init__()
        self.register_buffer("scale", grid.scale[index].float().clone())
        low = -grid.zero_point[index].item()
        self.codes = low, low + 2**grid.bits - 1

    def forward(self, x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        return (x / self.scale).round().clamp(*self.codes) * self.scale


class _Segment(nn.Module):
    """One segment of a layer's input channels: its grid, and its weight as integers, scale and sign."""

    integers: Tensor
    scale: Tensor
    sign: Tensor | None

    def __init__(self, layer: QuantizedLayer, index: int, weight: Tensor, scale: Tensor, any_sums: bool):
        super().__init__()
        stored = stored_weight(weight, scale, 0, "full")
        grid, (integers,) = layer.input_quantizer, stored.parts
        self.grid: nn.Module = nn.Identity()
        if grid is not None:
            cut_off = not any_sums and saturates(integers.to(torch.int16), 2**grid.bits - 1)
            self.grid = _Rounded(grid, index) if cut_off else _Bytes(grid, index)
            integers = integers.float() if cut_off else integers
        by_row = [-1, *[1] * (weight.dim() - 1)]
        self.register_buffer("integers", integers)
        self.register_buffer("scale", stored.scale.reshape(by_row))
        sign = None if stored.sign is None else stored.sign.reshape(by_row[: max(1, weight.dim() - 1)])
        self.register_buffer("sign", sign)

    @property
    def weight(self) -> Tensor:
        """The values of the weight, negated where `sign` is."""
        return self.integers.to(torch.float32) * self.scale


class _Layer(nn.Module):
    """A layer as nodes; one with several segments is a sum over slices of the input channels."""

    bias: Tensor | None
    smooth: Tensor | None

    def __init__(self, layer: QuantizedLayer, any_sums: bool):
        super().__init__()
        parts = enumerate(zip(*signed_weight(layer), strict=True))
        self.segments: Any = nn.ModuleList(
            _Segment(layer, index, weight, scale, any_sums) for index, (weight, scale) in parts
        )
        self.sizes = layer.channel_sizes
        by_channel = [-1, *[1] * (layer.weight.dim() - 2)]
        bias, smooth = layer.bias, layer.smooth
        self.register_buffer("bias", None if bias is None else bias.detach().reshape(by_channel))
        self.register_buffer("smooth", None if smooth is None else smooth.float().reshape(by_channel))
        self.geometry: Any = None
        if isinstance(layer, QuantizedConv2d):
            self.geometry = (layer.stride, layer.padding, layer.dilation, layer.groups)

    def _product(self, segment: _Segment, x: Tensor) -> Tensor:
        x, weight = segment.grid(x), segment.weight
        output = F.linear(x, weight) if self.geometry is None else F.conv2d(x, weight, None, *self.geometry)
        return output if segment.sign is None else output * segment.sign

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        x = x if self.smooth is None else x / self.smooth
        inputs = x.split(self.sizes, 1) if len(self.sizes) > 1 else (x,)
        output = self._product(self.segments[0], inputs[0])
        for segment, part in zip(self.segments[1:], inputs[1:], strict=True):
            output = output + self._product(segment, part)
        return output if self.bias is None else output + self.bias


class _Network(nn.Module):
    """A network with tensors in and out."""

    def __init__(self, unet: nn.Module, names: tuple[str, ...]):
        super().__init__()
        self.unet, self.names = unet, names

    def forward(self, *given: Tensor) -> Tensor:
        return network_call(self.unet, Rows(dict(zip(self.names, given, strict=True))))


def replacements(network: nn.Module, any_sums: bool) -> dict[int, nn.Module]:
    """The modules of nodes that stand for a network's layers and attention's quantizers, by `id` of these.

    Args:
        network: with codes.
        any_sums: whether products of bytes are exact on this processor, whatever they are.
    """
    layers = quantized_layers(network)
    found: dict[int, nn.Module] = {id(layer): _Layer(layer, any_sums) for layer in layers.values()}
    for name, quantizer in activation_quantizers(network).items():
        if name.rpartition(".")[0] not in layers:
            is_safe = any_sums or bool(quantizer.zero_point[0] != 0)
            found[id(quantizer)] = _Bytes(quantizer) if is_safe else _Rounded(quantizer)
    return found


@torch.no_grad()
def graph_of(unet: Network, any_sums: bool) -> openvino.Model:
    """The graph of a quantized U-Net, with inputs called as its family calls them.

    Its number of rows, and of tokens of sequences, is free.

    Args:
        unet: from `edadm.deploy.checkpoint.load_quantized`, left as it was.
        any_sums: see `replacements`.
    """
    example, shapes = {}, []
    for name, tensor in family_of(unet).inputs(unet).zeros(2).tensors.items():
        is_sequence = tensor.dim() == 3
        example[name] = tensor.repeat(1, _TOKENS, 1) if is_sequence else tensor
        free = [FREE, FREE] if is_sequence else [FREE]
        shapes.append(openvino.PartialShape([*free, *tensor.shape[len(free) :]]))
    kept: dict[int, Any] = {id(parameter): parameter for parameter in unet.parameters()}
    module = _Network(copy.deepcopy(unet, kept | replacements(unet, any_sums)), tuple(example)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sizes that are the same in every call
        graph = openvino.convert_model(module, example_input=tuple(example.values()), input=shapes)
    for port, name in zip(graph.inputs, example, strict=True):
        port.get_tensor().set_names({name})
    return graph
