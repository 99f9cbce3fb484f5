"""Attention with quantized operands of both matrix products (method, 3.4)."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor,
    AttnProcessor2_0,
    JointAttnProcessor2_0,
)
from jaxtyping import Float
from torch import Tensor, nn

from edadm.errors import EdadmError
from edadm.nn.quantizer import Quantizer

ATTENTIONS = (Attention, AttentionModuleMixin, nn.MultiheadAttention)
_PARTS = {"group_norm", "to_q", "to_k", "to_v", "to_out", "processor"}
_OF_TWO = {  # parts of an attention of two streams
    *("norm_q", "norm_k", "norm_added_q", "norm_added_k"),
    *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"),
}
_UNKNOWN = ("is_causal", "only_cross_attention", "fused_projections", "pre_only")

_PROCESSORS = (AttnProcessor, AttnProcessor2_0, JointAttnProcessor2_0)

NOT_ALONE = (
    "the attention of a quantized network keeps its processors, which hold grids, and never has an "
    "IP-Adapter; leave the call out"
)

Size = int | torch.SymInt | Tensor  # symbolic while a network is exported, a tensor while it is traced


def is_joint(attention: Attention) -> bool:
    """Whether an attention in floating point is of a block of two streams, though it may attend to one."""
    return type(attention.processor) is JointAttnProcessor2_0


def unknown_in(attention: Attention | AttentionModuleMixin | nn.MultiheadAttention) -> list[str]:
    """What an attention has that no `ProjectedAttention` computes, by diffusers' names."""
    if not isinstance(attention, Attention):
        return [f"the arithmetic of {type(attention).__name__}"]
    parts = _PARTS | _OF_TWO if is_joint(attention) else _PARTS
    found = [name for name, _ in attention.named_children() if name not in parts]
    found += [name for name in _UNKNOWN if getattr(attention, name, False)]
    if attention.inner_kv_dim != attention.inner_dim:
        found.append("kv_heads")
    if abs(attention.scale * (attention.inner_dim // attention.heads) ** 0.5 - 1) > 1e-6:
        found.append("scale_qk")
    known = type(attention) is Attention and type(attention.processor) in _PROCESSORS
    return (
        found if known else [*found, f"{type(attention).__name__} with {type(attention.processor).__name__}"]
    )


def biases_of_heads(
    mask: Float[Tensor, "m q k"] | None, samples: Size, heads: int, keys: Size
) -> Float[Tensor, "n q k"] | None:
    """The bias on the scores of all samples' heads, expanded as in diffusers' `prepare_attention_mask`.

    Raises:
        EdadmError: the mask has not one column per key, or is of another number of samples.
    """
    if mask is None:
        return None
    if mask.shape[-1] != keys or len(mask) not in (samples, samples * heads):
        raise EdadmError(
            f"an attention mask of {len(mask)} x {mask.shape[-1]} does not fit {samples} samples of {keys} "
            "tokens; give each "
            "sample a row with one number per token that is attended to"
        )
    return mask if len(mask) == samples * heads else mask.repeat_interleave(heads, dim=0)


class QuantizedAttention(Attention):
    """diffusers' attention inside a quantized network: its processor holds grids, and is not exchanged.

    `of` turns an attention into one. What only saves memory changes nothing; what changes arithmetic is
    refused.
    """

    @staticmethod
    def of(attention: Attention, processor: Any) -> None:
        """Gives an attention the processor that it keeps, in place."""
        Attention.set_processor(attention, processor)
        attention.__class__ = QuantizedAttention

    def set_processor(self, processor: Any) -> None:
        """Takes the processor that it has, and no other.

        Raises:
            EdadmError: another one.
        """
        if processor is not self.processor:
            raise EdadmError(
                f"the attention of a quantized network keeps its processor, which holds grids, and takes no "
                f"{type(processor).__name__}; leave the call out, or make it on the network in full precision"
            )

    def set_attention_slice(self, slice_size: int | None) -> None:
        """Changes nothing: slices would save memory, and compute the same."""

    def set_use_memory_efficient_attention_xformers(self, use: bool, attention_op: Any = None) -> None:
        """Changes nothing where it is switched off.

        Raises:
            EdadmError: where it is switched on.
        """
        if use:
            raise EdadmError(
                "the attention of a quantized network is computed on its grids, not by xformers; leave the "
                "call out"
            )

    def prepare_attention_mask(
        self, attention_mask: Any, target_length: Size, batch_size: Size, out_dim: int = 3
    ) -> Any:
        """`biases_of_heads`, called as diffusers calls it; no processor here asks for another `out_dim`."""
        return biases_of_heads(attention_mask, batch_size, self.heads, target_length)

    def fuse_projections(self, fuse: bool = True) -> None:
        """Refuses to make one layer of three, which have grids of their own.

        Raises:
            EdadmError: always.
        """
        raise EdadmError(
            "the projections of a quantized network have grids of their own and cannot be fused; leave the "
            "call out"
        )


class ProjectedAttention:
    """The parts around the two products of every attention here: norm, projections, heads, residual.

    As in diffusers' `AttnProcessor`.

    Attributes:
        most_keys: the number of tokens that the grid of the attention weights was searched at, beyond which
            they are left off it; None where no number is too large.
        besides: how many further tokens there are, of another stream, whose number does not count.
    """

    most_keys: int | None = None
    besides: Any = 0

    def has_grid_for(self, keys: Size) -> bool:
        """Whether attention weights over that many tokens lie on their grid.

        They do in an exported graph that leaves the number open.
        """
        return (
            self.most_keys is None
            or isinstance(keys, torch.SymInt)
            or bool(keys - self.besides <= self.most_keys)
        )

    def mixed(
        self,
        attn: Attention,
        query: Float[Tensor, "n q c"],
        key: Float[Tensor, "n k c"],
        value: Float[Tensor, "n k c"],
        mask: Float[Tensor, "m one k"] | None,
    ) -> Float[Tensor, "m q d"]:
        """Both products, a mask of all heads added to the first.

        Takes projections, which nobody else needs, and returns heads as `attn.head_to_batch_dim` lays them
        out.
        """
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
        mask = attn.prepare_attention_mask(attention_mask, context.shape[1], context.shape[0])
        mixed = self.mixed(attn, attn.to_q(hidden_states), attn.to_k(context), attn.to_v(context), mask)
        output = attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(mixed)))
        if len(shape) == 4:
            output = output.transpose(-1, -2).reshape(shape)
        if attn.residual_connection:
            output = output + residual
        return output if attn.rescale_output_factor == 1 else output / attn.rescale_output_factor


class QuantizedAttnProcessor(ProjectedAttention, nn.Module):
    """Quantizes query, key and value after their projections, and the softmax output.

    One grid per tensor each.

    With the quantizers disabled it computes what diffusers' `AttnProcessor` does, bit for bit; to rounding
    where the original network scales query and key before it multiplies them (`operands_scaled`, set by
    `edadm.networks.build`), and so does this.

    Args:
        bits: width of the query, key and value grids.
        softmax_bits: width of the grid of the attention weights; None leaves them in floating point.
    """

    def __init__(self, bits: int | None = None, softmax_bits: int | None = None):
        super().__init__()
        if bits is None:  # as `unload_ip_adapter` makes them
            raise EdadmError(NOT_ALONE)
        self.query_quantizer = Quantizer(bits)
        self.key_quantizer = Quantizer(bits)
        self.value_quantizer = Quantizer(bits)
        self.softmax_quantizer = None if softmax_bits is None else Quantizer(softmax_bits)

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
        if not scaled:
            weights = attn.get_attention_scores(query, key, mask)
        else:
            scores = torch.bmm(query, key.transpose(-1, -2))
            weights = (scores if mask is None else scores + mask).softmax(dim=-1)
        if self.softmax_quantizer is not None and self.has_grid_for(weights.shape[-1]):
            weights = self.softmax_quantizer(weights)
        return torch.bmm(weights, value)
