"""Attention and feed-forward layers of integers, in inference; an epilogue adds the residual."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.deploy.fuse.exact import Affine, Grids
from edadm.deploy.fuse.layers import IntegerConv2d, IntegerLinear
from edadm.errors import EdadmError
from edadm.kernels.int8.norms.group_norm import int8_normalised
from edadm.kernels.int8.products.geglu import int8_geglu
from edadm.nn.attention import biases_of_heads
from edadm.nn.part import refuse_other_channels


def of_one_segment(*layers: nn.Module) -> bool:
    """Whether all of these are integer layers whose input channels have one grid."""
    return all(isinstance(layer, IntegerConv2d) and len(layer.segments) == 1 for layer in layers)


def smoothed_alike(*layers: Any) -> bool:
    """Whether integer layers with one input divide its channels by the same factors, or by none."""
    first, *others = (layer.smooth for layer in layers)
    if first is None:
        return all(smooth is None for smooth in others)
    return all(smooth is not None and torch.equal(smooth, first) for smooth in others)


class IntegerFeedForward(nn.Module):
    """diffusers' `FeedForward` with GEGLU: the first layer writes the int8 input of the second.

    Smoothing of the second's input goes into the values' scales, since GEGLU multiplies by values.

    Args:
        first: to values and gates.
        second: back to the network's channels.
    """

    def __init__(self, first: IntegerLinear, second: IntegerLinear):
        super().__init__()
        self.first, self.second = first, second
        if (smooth := second.smooth) is not None:
            first.segments[0].divide_rows(torch.cat([smooth, torch.ones_like(smooth)]))

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        rows = self.first.segments[0].quantize_input(x.reshape(-1, x.shape[-1])).contiguous()
        return self.from_quantized(rows, x, None)

    def from_quantized(
        self, rows: Tensor, x: Float[Tensor, "..."], residual: Tensor | None
    ) -> Float[Tensor, "..."]:
        """The output of a quantized input, (rows, channels), shaped and typed like `x`, plus a residual."""
        (one,), (two,) = self.first.segments, self.second.segments
        weights = one.integers().flatten(1), one.scale, one.offset
        gated = int8_geglu(rows, *weights, two.input_scale, *two.qmin_qmax, two.zero)
        added = None if residual is None else residual.reshape(-1, 1, 1, residual.shape[-1])
        return self.second.matmul([gated[:, None, None]], x.dtype, added).reshape(*x.shape[:-1], -1)


class IntegerAttention(nn.Module):
    """The products of diffusers' attention, from int8 inputs to the sum with the residual.

    Args:
        attention: one that `fits`.

    Attributes:
        grids: of the inputs of queries, keys and values.
        has_one_input: whether all three may take one tensor, since they divide its channels by the same
            factors.
    """

    def __init__(self, attention: Attention):
        super().__init__()
        self.heads, (self.out, _) = attention.heads, attention.to_out
        products: list[Any] = [attention.to_q, attention.to_k, attention.to_v]
        self.products = nn.ModuleList(products)
        self.grids = Grids(product.segments[0] for product in products)
        self.has_one_input = smoothed_alike(*products)

    @property
    def smooth(self) -> Float[Tensor, " c"] | None:
        """The factors that the channels of what a norm feeds to the attention are divided by."""
        products: Any = self.products
        found: Tensor | None = products[0].smooth
        return found

    @staticmethod
    def fits(attention: nn.Module | None) -> bool:
        """Whether all layers of an attention are integer ones of one segment, and nothing follows them.

        `quantize_network` saw to the rest.
        """
        if not isinstance(attention, Attention):
            return False
        layers = attention.to_q, attention.to_k, attention.to_v, attention.to_out[0]
        if not of_one_segment(*layers) or attention.rescale_output_factor != 1:
            return False
        return bool(attention.is_cross_attention) or smoothed_alike(*layers[:3])

    def forward(
        self, inputs: list[Tensor], residual: Float[Tensor, "n q c"], mask: Float[Tensor, "m one k"] | None
    ) -> Float[Tensor, "n q c"]:
        """The attention's output plus the residual.

        Args:
            inputs: int8 inputs of queries, keys and values, (n, q or k, channels).
            residual: is added.
            mask: is added to the scores, of all heads of a sample or of each.
        """
        products: Any = self.products
        query, key, value = (
            product.matmul([part.reshape(-1, 1, 1, part.shape[-1])], residual.dtype)
            .reshape(len(residual), -1, self.heads, product.segments[0].shape[0] // self.heads)
            .transpose(1, 2)
            for product, part in zip(products, inputs, strict=True)
        )
        biases = biases_of_heads(mask, len(residual), self.heads, key.shape[2])
        by_head = None if biases is None else biases.unflatten(0, (len(residual), self.heads))
        found = F.scaled_dot_product_attention(query, key, value, by_head).transpose(1, 2)
        rows = residual.reshape(-1, 1, 1, residual.shape[-1])
        return self.out.quantized_matmul(found.reshape(len(rows), 1, 1, -1), rows).reshape(residual.shape)

    def quantize_context(self, context: Float[Tensor, "n k e"]) -> list[Tensor]:
        """The int8 inputs of keys and values."""
        products: Any = self.products
        refuse_other_channels(context, -1, products[1].in_features)
        return [product.segments[0].quantize_input(context).contiguous() for product in products[1:]]


class IntegerSelfAttention(nn.Module):
    """diffusers' attention between the pixels of an image, whose normalisation writes int8 inputs.

    Args:
        attention: one that `fits`.
    """

    def __init__(self, attention: Attention):
        super().__init__()
        self.attention = IntegerAttention(attention)
        self.affine = Affine(attention.group_norm, self.attention.smooth)

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether the module is an attention with a group normalisation, over nothing but the image."""
        if not IntegerAttention.fits(module) or module.group_norm is None:
            return False
        return bool(module.residual_connection) and not module.is_cross_attention

    def forward(
        self,
        hidden_states: Float[Tensor, "n c h w"],
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Float[Tensor, "m one k"] | None = None,
        temb: Tensor | None = None,
    ) -> Float[Tensor, "n c h w"]:
        """The attention's output plus its input, called as by diffusers.

        Args:
            hidden_states: the image.
            encoder_hidden_states: must be None.
            attention_mask: is added to the scores.
            temb: the time embedding, without effect.

        Raises:
            EdadmError: there is a context.
        """
        if encoder_hidden_states is not None:
            raise EdadmError(
                "this attention is between the pixels of an image and takes no context; leave it out"
            )
        x = hidden_states.permute(0, 2, 3, 1).contiguous()
        norm = self.affine
        settings = norm.groups, norm.eps, False, self.attention.grids.values, None
        inputs, *_ = int8_normalised(x, None, None, *norm.values, *settings)
        found = self.attention(list(inputs.flatten(2, 3).unbind()), x.flatten(1, 2), attention_mask)
        return found.reshape(x.shape).permute(0, 3, 1, 2)
