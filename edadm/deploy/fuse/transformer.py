"""Transformers of integer layers, in inference: normalisations write the int8 inputs of the next layers."""

from __future__ import annotations

from typing import Any

from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.transformers.transformer_2d import Transformer2DModel, Transformer2DModelOutput
from jaxtyping import Float
from torch import Tensor, nn

from edadm.deploy.fuse.attention import IntegerAttention, IntegerFeedForward, of_one_segment
from edadm.deploy.fuse.exact import Affine
from edadm.errors import EdadmError
from edadm.kernels.int8.norms.group_norm import int8_normalised
from edadm.kernels.int8.norms.layer_norm import int8_layer_normalised


class IntegerTransformerBlock(nn.Module):
    """diffusers' `BasicTransformerBlock` with layer normalisation, perhaps with attention over a context.

    Args:
        block: one that `fits`.

    Raises:
        EdadmError: when it is called with `cross_attention_kwargs`, or without the context that its attention
            takes.
    """

    def __init__(self, block: BasicTransformerBlock):
        super().__init__()
        pairs = [(block.norm1, block.attn1), (block.norm2, block.attn2)]
        pairs = [(norm, attention) for norm, attention in pairs if attention is not None]
        attentions = [IntegerAttention(attention) for _, attention in pairs]
        norms = [norm for norm, _ in pairs]
        self.attentions = nn.ModuleList(attentions)
        self.affines = nn.ModuleList(
            Affine(norm, attention.smooth) for norm, attention in zip(norms, attentions, strict=True)
        )
        feed_forward: Any = block.ff
        self.last, self.ff = Affine(block.norm3, feed_forward.first.smooth), feed_forward

    @staticmethod
    def fits(block: nn.Module) -> bool:
        """Whether all parts of a block are integer ones, and it is normalised without regard to time."""
        if (
            not isinstance(block, BasicTransformerBlock)
            or block.norm_type != "layer_norm"
            or block.pos_embed is not None
        ):
            return False
        attentions = [attention for attention in (block.attn1, block.attn2) if attention is not None]
        norms = all(
            isinstance(norm, nn.LayerNorm) and norm.elementwise_affine for norm in (block.norm1, block.norm3)
        )
        integer = isinstance(block.ff, IntegerFeedForward) and all(map(IntegerAttention.fits, attentions))
        integer = integer and not any(
            attention.residual_connection or attention.group_norm for attention in attentions
        )
        return norms and integer and not block.only_cross_attention and not hasattr(block, "fuser")

    def forward(
        self,
        hidden_states: Float[Tensor, "n q c"],
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Float[Tensor, "n k e"] | None = None,
        encoder_attention_mask: Tensor | None = None,
        cross_attention_kwargs: dict[str, Any] | None = None,
        **unused: Any,
    ) -> Float[Tensor, "n q c"]:
        """The block's output, called as by diffusers; `unused` is for other normalisations."""
        if cross_attention_kwargs:
            raise EdadmError(
                "this network takes no cross_attention_kwargs; leave them out, "
                "or load with backend 'simulated'"
            )
        x = hidden_states.contiguous()
        contexts = (None, attention_mask), (encoder_hidden_states, encoder_attention_mask)
        affine: Any
        attention: Any
        for affine, attention, (context, mask) in zip(self.affines, self.attentions, contexts, strict=False):
            if context is None and not attention.has_one_input:
                raise EdadmError("this attention is over a context; give encoder_hidden_states")
            own = attention.grids.values if context is None else attention.grids.values[:1]
            inputs = list(self._normalise(affine, x, own).reshape(len(own), *x.shape).unbind())
            x = attention(
                inputs if context is None else inputs + attention.quantize_context(context), x, mask
            )
        (rows,) = self._normalise(self.last, x, self.ff.first.segments[0].grid[None]).unbind()
        return self.ff.from_quantized(rows, x, x)

    @staticmethod
    def _normalise(affine: Any, x: Float[Tensor, "n q c"], grids: Tensor) -> Tensor:
        """The int8 numbers of a layer normalisation on every grid."""
        return int8_layer_normalised(x.reshape(-1, x.shape[-1]), *affine.values, affine.eps, grids)


class IntegerTransformer(nn.Module):
    """diffusers' `Transformer2DModel` over an image.

    Args:
        model: one that `fits`.
    """

    def __init__(self, model: Transformer2DModel):
        super().__init__()
        first: Any = model.proj_in
        self.affine, self.first, self.transformer_blocks, self.last = (
            Affine(model.norm, first.smooth),
            first,
            model.transformer_blocks,
            model.proj_out,
        )

    @staticmethod
    def fits(model: nn.Module) -> bool:
        """Whether all parts of a transformer are integer ones."""
        if not isinstance(model, Transformer2DModel) or not model.is_input_continuous:
            return False
        return of_one_segment(model.proj_in, model.proj_out) and all(
            isinstance(b, IntegerTransformerBlock) for b in model.transformer_blocks
        )

    def forward(
        self, hidden_states: Float[Tensor, "n c h w"], return_dict: bool = True, **others: Any
    ) -> Any:
        """The transformer's output, called as by diffusers; `others` go to the blocks.

        Masks of two axes, 1 where a token counts, go there as biases.
        """
        for name in ("attention_mask", "encoder_attention_mask"):
            if (mask := others.get(name)) is not None and mask.dim() == 2:
                others[name] = ((1 - mask.to(hidden_states.dtype)) * -10_000.0)[:, None]
        x, norm = hidden_states.permute(0, 2, 3, 1).contiguous(), self.affine
        first: Any = self.first
        settings = norm.groups, norm.eps, False, first.segments[0].grid[None], None
        inputs, *_ = int8_normalised(x, None, None, *norm.values, *settings)
        hidden = first.matmul([inputs[0]], x.dtype)
        rows = hidden.flatten(1, 2)
        for block in self.transformer_blocks:
            rows = block(rows, **others)
        last: Any = self.last
        found = last.quantized_matmul(rows.reshape(hidden.shape), x).permute(0, 3, 1, 2)
        return Transformer2DModelOutput(sample=found) if return_dict else (found,)
