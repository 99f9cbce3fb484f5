"""Attention with quantized operands of both matrix products (method, 3.4)."""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor, nn

from edadm.nn.quantizer import Quantizer


class ProjectedAttention:
    """What is around the two products of every attention here: norm, projections, heads, residual, as in diffusers' `AttnProcessor`."""

    def mixed(
        self,
        attn: Attention,
        query: Float[Tensor, "n q c"],
        key: Float[Tensor, "n k c"],
        value: Float[Tensor, "n k c"],
        mask: Tensor | None,
    ) -> Float[Tensor, "m q d"]:
        """Both products; takes projections, which nobody else needs, and returns heads as `attn.head_to_batch_dim` lays them out."""
        raise TypeError("a subclass says how attention mixes")

    def normalised(self, attn: Attention, hidden_states: Float[Tensor, "n k c"]) -> Float[Tensor, "n k c"]:
        """What the projections are given, where the attention has a norm of its own."""
        return attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)

    def __call__(  # not `forward`: diffusers passes on only what it finds in this signature
        self,
        attn: Attention,
        hidden_states: Float[Tensor, " n *s"],
        encoder_hidden_states: Float[Tensor, "n k e"] | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Float[Tensor, " n *s"]:
        residual, shape = hidden_states, hidden_states.shape
        if len(shape) == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = self.normalised(attn, hidden_states)
        context = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        mixed = self.mixed(attn, attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context), attention_mask)
        output = attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(mixed)))
        if len(shape) == 4:
            output = output.transpose(-1, -2).reshape(shape)
        if attn.residual_connection:
            output = output + residual
        return output if attn.rescale_output_factor == 1 else output / attn.rescale_output_factor


class QuantizedAttnProcessor(ProjectedAttention, nn.Module):
    """Quantizes query, key and value after their projections and the softmax output, one grid per tensor each.

    With the quantizers disabled it computes what diffusers' `AttnProcessor` does, bit for bit; to rounding where the original
    network scales query and key before it multiplies them (`operands_scaled`, set by `edadm.models.unet`), and so does this.

    Args:
        bits: width of the query, key and value grids.
        softmax_bits: width of the grid of the attention weights.
    """

    def __init__(self, bits: int, softmax_bits: int):
        super().__init__()
        self.query_quantizer = Quantizer(bits)
        self.key_quantizer = Quantizer(bits)
        self.value_quantizer = Quantizer(bits)
        self.softmax_quantizer = Quantizer(softmax_bits)

    def mixed(
        self,
        attn: Attention,
        query: Float[Tensor, "n q c"],
        key: Float[Tensor, "n k c"],
        value: Float[Tensor, "n k c"],
        mask: Tensor | None,
    ) -> Float[Tensor, "m q d"]:
        if scaled := getattr(attn, "operands_scaled", False):
            query, key = query * attn.scale**0.5, key * attn.scale**0.5
        query = attn.head_to_batch_dim(self.query_quantizer(query))
        key = attn.head_to_batch_dim(self.key_quantizer(key))
        value = attn.head_to_batch_dim(self.value_quantizer(value))
        weights = torch.bmm(query, key.transpose(-1, -2)).softmax(dim=-1) if scaled else attn.get_attention_scores(query, key, mask)
        return torch.bmm(self.softmax_quantizer(weights), value)
