"""The backend `cuda_int8`: integer inference on a GPU, by the modules of `edadm.deploy.fuse`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from edadm.deploy.backends.base import Backend, computes_static_integers
from edadm.deploy.fuse.layers import IntegerConv2d, IntegerGatheredConv2d, IntegerLinear
from edadm.deploy.fuse.network import fuse_attention, fuse_epilogues
from edadm.deploy.fuse.segment import InputGrid, IntegerSegment
from edadm.deploy.int_weight import signed_weight
from edadm.networks.family import Network
from edadm.nn.insert import quantized_layers
from edadm.nn.layers import QuantizedConv2d, QuantizedLayer, QuantizedLinear
from edadm.nn.sound import pass_on_what_is_not_finite, refuse_inputs_of_other_types
from edadm.quant.scheme import Scheme


def computes_with_integers(layer: QuantizedLayer) -> bool:
    """Whether a layer's input is on a grid, and its window one that the kernel knows.

    Other layers stay in floating point.
    """
    if layer.input_quantizer is None or layer.input_quantizer.bits > 8:
        return False
    if not isinstance(layer, QuantizedConv2d):
        return True
    square = layer.weight.shape[2] == layer.weight.shape[3] and layer.stride[0] == layer.stride[1]
    even = not isinstance(layer.padding, str) and layer.padding[0] == layer.padding[1]
    return square and even and layer.groups == 1 and tuple(layer.dilation) == (1, 1)


def _last(weight: torch.Tensor) -> torch.Tensor:
    """Output channels first, input channels last."""
    return weight.permute(0, 2, 3, 1) if weight.dim() == 4 else weight[:, None, None, :]


def integer_layer(layer: QuantizedLayer, keep_packed: bool = True) -> IntegerConv2d:
    """A layer that computes with the codes of a quantized one.

    Args:
        layer: with codes, and an input on a grid.
        keep_packed: 4-bit weights stay packed in memory and are unpacked at every call, but for those of few
            channels.
    """
    grid, codes = layer.input_quantizer, layer.codes
    assert grid is not None and codes is not None
    sizes = layer.channel_sizes
    weights, scales = signed_weight(layer)
    zero_points = layer.weight_quantizer.zero_point.unbind(1)
    smooth: Sequence[torch.Tensor | None] = [None] * len(sizes)
    if layer.smooth is not None:
        smooth = layer.smooth.split(sizes)
    segments = []
    for index, part in enumerate(codes.split(sizes, 1)):
        inputs = InputGrid(grid.scale[index], int(grid.zero_point[index]), grid.bits, smooth[index])
        weight = _last(weights[index])
        if isinstance(layer, QuantizedConv2d) and len(sizes) == 1 and IntegerGatheredConv2d.fits(weight):
            segment = IntegerSegment(IntegerGatheredConv2d.gathered_weight(weight), scales[index], inputs)
            return IntegerGatheredConv2d(
                segment, sizes[0], layer.bias, weight.shape[1], layer.stride[0], int(layer.padding[0])
            )
        packed = (
            (_last(part), zero_points[index]) if keep_packed and layer.weight_quantizer.bits <= 4 else None
        )
        segments.append(IntegerSegment(weight, scales[index], inputs, packed))
    if isinstance(layer, QuantizedConv2d):
        return IntegerConv2d(segments, sizes, layer.bias, layer.stride[0], int(layer.padding[0]))
    return IntegerLinear(segments, sizes, layer.bias)


def _float_layer(layer: QuantizedLayer) -> nn.Module:
    """A layer whose input has no grid, with the values of its codes."""
    rows, channels = layer.weight.shape[:2]
    made: nn.Conv2d | nn.Linear
    if isinstance(layer, QuantizedLinear):
        made = nn.Linear(channels, rows, layer.bias is not None, device="meta")
    else:
        assert isinstance(layer, QuantizedConv2d)
        window: Any = (
            tuple(layer.weight.shape[2:]),
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
            layer.bias is not None,
        )
        with torch.device("meta"):
            made = nn.Conv2d(channels * layer.groups, rows, *window)
    made.weight = nn.Parameter(layer.unsmoothed_weight.clone(), requires_grad=False)
    made.bias = None if layer.bias is None else nn.Parameter(layer.bias.data.clone(), requires_grad=False)
    return made


def lower_for_cuda(
    unet: Network, dtype: torch.dtype = torch.bfloat16, keep_packed: bool = True, fuse: bool = True
) -> Network:
    """A copy of a quantized U-Net that computes its layers with integers.

    Integer are all convolutions and linear layers whose input is on a grid. In floating point of type `dtype`
    are the layers without (the last convolution), normalisations, activations, and attention's two products:
    their grids are dropped, PyTorch's `scaled_dot_product_attention` takes their place. `.compile()` fuses
    what lies between the layers, the quantization included.

    Args:
        unet: from `edadm.deploy.checkpoint.load_quantized`. On a CPU the copy computes the same, slowly, by
            the operations' plain meaning.
        dtype: of activations.
        keep_packed: see `integer_layer`.
        fuse: `fuse_epilogues`. What lies between a product and what follows it is fp32 then, not rounded to
            `dtype`. FreeU and `cross_attention_kwargs` need a network without.
    """
    memo: dict[int, Any] = {}
    for layer in quantized_layers(unet).values():
        memo[id(layer)] = (
            integer_layer(layer, keep_packed) if computes_with_integers(layer) else _float_layer(layer)
        )
    lowered = fuse_attention(copy.deepcopy(unet, memo))
    lowered = fuse_epilogues(lowered) if fuse else lowered
    nn.Module.to(lowered, dtype)  # diffusers' own `to` warns of every cast
    pass_on_what_is_not_finite(lowered)
    refuse_inputs_of_other_types(lowered)
    return lowered


class CudaInt8(Backend):
    """The backend of NVIDIA GPUs: `edadm.deploy.fuse`'s modules, whose products are Triton kernels."""

    def runs(self, scheme: Scheme) -> bool:
        """See `computes_static_integers`."""
        return computes_static_integers(scheme)

    def lower(self, unet: Network, dtype: torch.dtype) -> Network:
        """See `lower_for_cuda`."""
        return lower_for_cuda(unet, dtype)


BACKEND = CudaInt8()
