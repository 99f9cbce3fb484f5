"""Modules of integer networks on a CPU: layers, residual blocks and attention."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Float, Int8
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.deploy.fuse.resnet import ResnetParts
from edadm.deploy.int_weight import signed_weight
from edadm.errors import EdadmError
from edadm.kernels.cpu.choice import ExactConvolution
from edadm.kernels.cpu.geometry import Geometry, Problem
from edadm.kernels.dispatch import refuse_other_types, refuse_scattered
from edadm.nn.attention import NOT_ALONE, ProjectedAttention, QuantizedAttnProcessor
from edadm.nn.joint import JointAttention
from edadm.nn.layers import QuantizedConv2d, QuantizedLayer
from edadm.nn.on_cpu import StaysOnCpu
from edadm.nn.part import Part, refuse_other_channels
from edadm.nn.quantizer import Quantizer


class CpuSegment:
    """One segment of a layer's input channels, and its product.

    A linear layer is a 1x1 convolution over its rows.
    """

    def __init__(
        self,
        layer: QuantizedLayer,
        index: int,
        weight: Int8[Tensor, "rows c *s"],
        scale: Float[Tensor, " rows"],
    ):
        grid = layer.input_quantizer
        assert grid is not None
        zero_point, scale_of_input = int(grid.zero_point[index]), grid.scale[index].clone()
        self.divisor = scale_of_input
        if layer.smooth is not None:  # powers of two, so that one division is exactly both
            self.divisor = scale_of_input * layer.smooth.split(layer.channel_sizes)[index][:, None, None]
        self.qmin_qmax = (-zero_point, 2**grid.bits - 1 - zero_point)
        geometry = Geometry()
        if isinstance(layer, QuantizedConv2d):
            given: Any = (layer.stride, layer.padding, layer.dilation, layer.groups)
            geometry = Geometry(*given)
        else:
            weight = weight[:, :, None, None]
        self.product = ExactConvolution(Problem(weight, scale, float(scale_of_input), zero_point, geometry))

    def quantize_input(self, x: Float[Tensor, "n c h w"], in_place: bool = False) -> Float[Tensor, "n c h w"]:
        """Codes of the input minus its zero point, those of the simulation bit for bit.

        `in_place` spoils the input and is faster.
        """
        in_place = in_place and x.is_contiguous(memory_format=torch.channels_last)
        if not in_place:
            x = (x / self.divisor).contiguous(memory_format=torch.channels_last)
            return x.round_().clamp_(*self.qmin_qmax)
        return x.div_(self.divisor).round_().clamp_(*self.qmin_qmax)


class CpuLayer(StaysOnCpu, Part):
    """A quantized layer, with codes and an input grid, that computes with integers.

    It means what `QuantizedLayer` does.
    """

    def __init__(self, layer: QuantizedLayer):
        super().__init__()
        self.sizes = layer.channel_sizes
        self.rows, self.channels = layer.weight.shape[0], layer.weight.shape[1] * getattr(layer, "groups", 1)
        self.bias = None if layer.bias is None else nn.Parameter(layer.bias.float(), requires_grad=False)
        weights, scales = signed_weight(layer)
        parts = enumerate(zip(weights, scales, strict=True))
        self.segments = [CpuSegment(layer, index, weight, scale) for index, (weight, scale) in parts]

    @property
    def packed_bytes(self) -> int:
        """The bytes of weights, which are no parameters and no buffers."""
        return sum(segment.product.packed_bytes for segment in self.segments)

    def forward(self, x: Float[Tensor, "n c h w"], in_place: bool = False) -> Float[Tensor, "n o p q"]:
        """The layer's output.

        Args:
            x: the input.
            in_place: spoils the input and is faster.

        Raises:
            EdadmError: input or bias are elsewhere or of another type, which would end the process.
        """
        self._refuse_unfitting(x, 1)
        return self._product(x, in_place, self.bias)

    def _refuse_unfitting(self, x: Tensor, axis: int) -> None:
        """Refuses an input, whose channels lie along an axis, as `forward` says."""
        refuse_scattered(x, self.segments[0].divisor, self.bias)
        refuse_other_types(torch.float32, x, self.bias)
        refuse_other_channels(x, axis, self.channels)

    def _product(self, x: Float[Tensor, "n c h w"], in_place: bool, bias: Tensor | None) -> Tensor:
        """The products of all segments with the codes of an input, and the bias."""
        inputs = x.split(self.sizes, 1) if len(self.sizes) > 1 else (x,)
        first, *others = zip(self.segments, inputs, strict=True)
        output = first[0].product(first[0].quantize_input(first[1], in_place), bias)
        for segment, part in others:
            output += segment.product(segment.quantize_input(part, in_place))
        return output


class CpuConv2d(CpuLayer):
    """See `CpuLayer`; the input is (n, c, h, w)."""


class CpuLinear(CpuLayer):
    """See `CpuLayer`; the input is (..., features)."""

    @property
    def in_features(self) -> int:
        """Features of the input, as `nn.Linear` names them: diffusers' pipelines read it."""
        return sum(self.sizes)

    @property
    def out_features(self) -> int:
        """Features of the output, as `nn.Linear` names them."""
        return self.rows

    def forward(self, x: Float[Tensor, "..."], in_place: bool = False) -> Float[Tensor, "..."]:
        rows = x.reshape(1, -1, x.shape[-1]).transpose(1, 2).unsqueeze(-1)
        output = super().forward(rows, in_place).squeeze(-1).transpose(1, 2)
        return output.reshape(*x.shape[:-1], output.shape[-1])


def _consume(layer: nn.Module, x: Tensor) -> Tensor:
    """A layer's output of an input that nobody else needs, unless there is a branch beside the layer."""
    in_place = isinstance(layer, CpuLayer) and not hasattr(layer, "low_rank")
    return layer(x, in_place=True) if in_place else layer(x)


class CpuResnetBlock(ResnetParts):
    """The block without the passes over memory that change nothing, and with the others in place.

    Bit for bit what the block with the same layers computes.
    """

    @staticmethod
    def fits(block: nn.Module) -> bool:
        """Whether it is one of those without FiLM."""
        return ResnetParts.fits(block) and block.time_embedding_norm == "default"

    def forward(
        self, input_tensor: Float[Tensor, "n c h w"], temb: Float[Tensor, "n e"]
    ) -> Float[Tensor, "n o h w"]:
        hidden = _consume(self.conv1, F.silu(self.norm1(input_tensor), inplace=True))
        hidden += self.time_emb_proj(F.silu(temb))[:, :, None, None]
        hidden = _consume(self.conv2, F.silu(self.norm2(hidden), inplace=True))
        hidden += input_tensor if self.conv_shortcut is None else self.conv_shortcut(input_tensor)
        return hidden


class CpuAttnProcessor(ProjectedAttention):
    """The attention processor `QuantizedAttnProcessor` with integers in both of its products.

    They are floating-point numbers, whose sums below 2^24 are exact. Scales are applied to the products, so
    that the matrix of attention weights is passed over less often. For attentions that do not scale query and
    key before they are quantized.
    """

    def __init__(self, processor: QuantizedAttnProcessor | None = None):
        if processor is None:
            raise EdadmError(NOT_ALONE)
        self.query = _Integers(processor.query_quantizer)
        self.key = _Integers(processor.key_quantizer)
        self.value = _Integers(processor.value_quantizer)
        grid = processor.softmax_quantizer
        self.softmax = None if grid is None else _Integers(grid)
        self.most_keys = processor.most_keys

    def normalised(self, attn: Attention, hidden_states: Float[Tensor, "n k c"]) -> Float[Tensor, "n k c"]:
        """The normalised input, brought into the order of its axes once instead of by each projection."""
        return super().normalised(attn, hidden_states).contiguous()

    def mixed(
        self,
        attn: Attention,
        query: Float[Tensor, "n q c"],
        key: Float[Tensor, "n k c"],
        value: Float[Tensor, "n k c"],
        mask: Tensor | None,
    ) -> Float[Tensor, "m q d"]:
        query, key = attn.head_to_batch_dim(self.query(query)), attn.head_to_batch_dim(self.key(key))
        scores = torch.bmm(query, key.transpose(-1, -2)).mul_(self.query.scale * self.key.scale * attn.scale)
        if mask is not None:
            scores.add_(mask)
        value = attn.head_to_batch_dim(self.value(value))
        weights, scale = scores.softmax(dim=-1), self.value.scale
        if self.softmax is not None and self.has_grid_for(weights.shape[-1]):
            weights, scale = self.softmax(weights), self.softmax.scale * scale
        return torch.bmm(weights, value).mul_(scale)


class CpuJointAttnProcessor(JointAttention, CpuAttnProcessor):
    """`CpuAttnProcessor` for two streams of tokens."""


class _Integers:
    """A quantizer that gives codes minus zero point of a tensor, which it spoils."""

    def __init__(self, quantizer: Quantizer):
        zero_point = int(quantizer.zero_point)
        self.scale = quantizer.scale.reshape(()).clone()
        self.qmin_qmax = (-zero_point, 2**quantizer.bits - 1 - zero_point)

    def __call__(self, x: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        return x.div_(self.scale).round_().clamp_(*self.qmin_qmax)
