"""Attention of two streams of tokens to both, on grids, as diffusers' `JointAttnProcessor2_0` has it."""

from __future__ import annotations

import torch
from diffusers.models.attention_processor import Attention
from jaxtyping import Float
from torch import Tensor, nn

from edadm.nn.attention import ProjectedAttention, QuantizedAttnProcessor


class JointAttention(ProjectedAttention):
    """The parts around the two products: projections and norms of each stream, and one product for both.

    Queries, keys and values of the second stream stand behind those of the first.
    """

    def __call__(  # type: ignore[override]  # both streams come back
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "n q c"],
        encoder_hidden_states: Float[Tensor, "n k c"] | None = None,
        attention_mask: None = None,
    ) -> Float[Tensor, "n q c"] | tuple[Float[Tensor, "n q c"], Float[Tensor, "n k c"]]:
        parts = [
            _normed(attn, attn.to_q(hidden_states), attn.norm_q),
            _normed(attn, attn.to_k(hidden_states), attn.norm_k),
            attn.to_v(hidden_states),
        ]
        self.besides = 0 if encoder_hidden_states is None else encoder_hidden_states.shape[1]
        if encoder_hidden_states is not None:
            added = (
                _normed(attn, attn.add_q_proj(encoder_hidden_states), attn.norm_added_q),
                _normed(attn, attn.add_k_proj(encoder_hidden_states), attn.norm_added_k),
                attn.add_v_proj(encoder_hidden_states),
            )
            parts = [torch.cat(pair, dim=1) for pair in zip(parts, added, strict=True)]
        query, key, value = parts
        mixed = attn.batch_to_head_dim(self.mixed(attn, query, key, value, None))
        own, others = mixed.split([hidden_states.shape[1], mixed.shape[1] - hidden_states.shape[1]], dim=1)
        output: Tensor = attn.to_out[1](attn.to_out[0](own))
        if encoder_hidden_states is None:
            return output
        return output, others if attn.context_pre_only else attn.to_add_out(others)


def _normed(
    attn: Attention, projected: Float[Tensor, "n k c"], norm: nn.Module | None
) -> Float[Tensor, "n k c"]:
    """Projections whose heads are normalised, where the attention does that."""
    return projected if norm is None else norm(projected.unflatten(-1, (attn.heads, -1))).flatten(-2)


class QuantizedJointAttnProcessor(JointAttention, QuantizedAttnProcessor):
    """`QuantizedAttnProcessor` for two streams: one grid each for all queries, all keys, all values."""
