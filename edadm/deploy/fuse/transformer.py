"""Attention and transformers of integer layers, in inference: normalisations write the numbers that products multiply, and products add
what goes around them as they end."""

from __future__ import annotations

from typing import Any

from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel, Transformer2DModelOutput
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.deploy.fuse.exact import Affine, Grids
from edadm.deploy.fuse.layers import IntegerConv2d, IntegerLinear
from edadm.errors import EdadmError
from edadm.kernels.int8.norms.group_norm import int8_normalised
from edadm.kernels.int8.norms.layer_norm import int8_layer_normalised
from edadm.kernels.int8.products.geglu import int8_geglu
from edadm.nn.attention import biases_of_heads


def _of_one_segment(*layers: nn.Module) -> bool:
    return all(isinstance(layer, IntegerConv2d) and len(layer.segments) == 1 for layer in layers)


class IntegerFeedForward(nn.Module):
    """diffusers' `FeedForward` with GEGLU: the first layer writes the numbers that the second multiplies.

    Args:
        first: to values and gates.
        second: back to the network's channels.
    """

    def __init__(self, first: IntegerLinear, second: IntegerLinear):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        rows = self.first.segments[0].numbers(x.reshape(-1, x.shape[-1])).contiguous()
        return self.of_numbers(rows, x, None)

    def of_numbers(
        self, rows: Tensor, x: Float[Tensor, "..."], addend: Tensor | None
    ) -> Float[Tensor, "..."]:
        """The same of an input's numbers, (rows, channels), as large as `x` and of its type; plus an addend."""
        (one,), (two,) = self.first.segments, self.second.segments
        numbers = int8_geglu(
            rows, one.integers().flatten(1), one.scale, one.offset, two.input_scale, *two.ends, two.zero
        )
        around = None if addend is None else addend.reshape(-1, 1, 1, addend.shape[-1])
        return self.second.summed([numbers[:, None, None]], x.dtype, around).reshape(*x.shape[:-1], -1)


class IntegerAttention(nn.Module):
    """The products of diffusers' attention, from numbers to the sum with what goes around it.

    Args:
        attention: one that `fits`.

    Attributes:
        grids: of the inputs of queries, keys and values.
    """

    def __init__(self, attention: Attention):
        super().__init__()
        self.heads, (self.out, _) = attention.heads, attention.to_out
        products: list[Any] = [attention.to_q, attention.to_k, attention.to_v]
        self.products = nn.ModuleList(products)
        self.grids = Grids(product.segments[0] for product in products)

    @staticmethod
    def fits(attention: nn.Module | None) -> bool:
        """Whether all its layers are integer ones of one segment, and nothing follows them; `quantize_network` saw to the rest."""
        if not isinstance(attention, Attention):
            return False
        layers = attention.to_q, attention.to_k, attention.to_v, attention.to_out[0]
        return _of_one_segment(*layers) and attention.rescale_output_factor == 1

    def forward(
        self, numbers: list[Tensor], around: Float[Tensor, "n q c"], mask: Float[Tensor, "m one k"] | None
    ) -> Float[Tensor, "n q c"]:
        """The sum.

        Args:
            numbers: inputs of queries, keys and values, (n, q or k, channels).
            around: is added.
            mask: is added to the scores, of all heads of a sample or of each.
        """
        products: Any = self.products
        query, key, value = (
            product.summed([part.reshape(-1, 1, 1, part.shape[-1])], around.dtype)
            .reshape(len(around), -1, self.heads, product.segments[0].shape[0] // self.heads)
            .transpose(1, 2)
            for product, part in zip(products, numbers, strict=True)
        )
        biases = biases_of_heads(mask, len(around), self.heads, key.shape[2])
        by_head = None if biases is None else biases.unflatten(0, (len(around), self.heads))
        found = F.scaled_dot_product_attention(query, key, value, by_head).transpose(1, 2)
        rows = around.reshape(-1, 1, 1, around.shape[-1])
        return self.out.product(found.reshape(len(rows), 1, 1, -1), rows).reshape(around.shape)

    def of_context(self, context: Float[Tensor, "n k e"]) -> list[Tensor]:
        """Numbers of keys' and values' inputs."""
        products: Any = self.products
        return [product.segments[0].numbers(context).contiguous() for product in products[1:]]


class IntegerSelfAttention(nn.Module):
    """diffusers' attention between the pixels of an image: its normalisation writes the numbers of queries, keys and values.

    Args:
        attention: one that `fits`.
    """

    def __init__(self, attention: Attention):
        super().__init__()
        self.affine, self.attention = Affine(attention.group_norm), IntegerAttention(attention)

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Whether it is one with a group normalisation, over nothing but the image."""
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
        """As diffusers calls it.

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
        numbers, *_ = int8_normalised(
            x, None, None, *norm.values, norm.groups, norm.eps, False, self.attention.grids.values, None
        )
        found = self.attention(list(numbers.flatten(2, 3).unbind()), x.flatten(1, 2), attention_mask)
        return found.reshape(x.shape).permute(0, 3, 1, 2)


class IntegerTransformerBlock(nn.Module):
    """diffusers' `BasicTransformerBlock` with layer normalisation: attention, perhaps attention over a context, feed-forward.

    Args:
        block: one that `fits`.

    Raises:
        EdadmError: when it is called with `cross_attention_kwargs`.
    """

    def __init__(self, block: BasicTransformerBlock):
        super().__init__()
        pairs = [(block.norm1, block.attn1), (block.norm2, block.attn2)]
        pairs = [(norm, attention) for norm, attention in pairs if attention is not None]
        self.affines = nn.ModuleList(Affine(norm) for norm, _ in pairs)
        self.attentions = nn.ModuleList(IntegerAttention(attention) for _, attention in pairs)
        self.last, self.ff = Affine(block.norm3), block.ff

    @staticmethod
    def fits(block: nn.Module) -> bool:
        """Whether all its parts are integer ones, and it is normalised without regard to time."""
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
        """As diffusers calls it; `unused` is for other normalisations."""
        if cross_attention_kwargs:
            raise EdadmError(
                "this network takes no cross_attention_kwargs; leave them out, or load with backend 'simulated'"
            )
        x = hidden_states.contiguous()
        contexts = (None, attention_mask), (encoder_hidden_states, encoder_attention_mask)
        affine: Any
        attention: Any
        for affine, attention, (context, mask) in zip(self.affines, self.attentions, contexts, strict=False):
            own = attention.grids.values if context is None else attention.grids.values[:1]
            numbers = list(self._numbers(affine, x, own).reshape(len(own), *x.shape).unbind())
            x = attention(numbers if context is None else numbers + attention.of_context(context), x, mask)
        (rows,) = self._numbers(self.last, x, self.ff.first.segments[0].grid[None]).unbind()
        return self.ff.of_numbers(rows, x, x)

    @staticmethod
    def _numbers(affine: Any, x: Float[Tensor, "n q c"], grids: Tensor) -> Tensor:
        return int8_layer_normalised(x.reshape(-1, x.shape[-1]), *affine.values, affine.eps, grids)


class IntegerTransformer(nn.Module):
    """diffusers' `Transformer2DModel` over an image.

    Args:
        model: one that `fits`.
    """

    def __init__(self, model: Transformer2DModel):
        super().__init__()
        self.affine, self.first, self.transformer_blocks, self.last = (
            Affine(model.norm),
            model.proj_in,
            model.transformer_blocks,
            model.proj_out,
        )

    @staticmethod
    def fits(model: nn.Module) -> bool:
        """Whether all its parts are integer ones."""
        if not isinstance(model, Transformer2DModel) or not model.is_input_continuous:
            return False
        return _of_one_segment(model.proj_in, model.proj_out) and all(
            isinstance(b, IntegerTransformerBlock) for b in model.transformer_blocks
        )

    def forward(
        self, hidden_states: Float[Tensor, "n c h w"], return_dict: bool = True, **others: Any
    ) -> Any:
        """As diffusers calls it; `others` go to the blocks, masks of two axes, 1 where a token counts, as biases."""
        for name in ("attention_mask", "encoder_attention_mask"):
            if (mask := others.get(name)) is not None and mask.dim() == 2:
                others[name] = ((1 - mask.to(hidden_states.dtype)) * -10_000.0)[:, None]
        x, norm = hidden_states.permute(0, 2, 3, 1).contiguous(), self.affine
        first: Any = self.first
        numbers, *_ = int8_normalised(
            x, None, None, *norm.values, norm.groups, norm.eps, False, first.segments[0].grid[None], None
        )
        hidden = first.summed([numbers[0]], x.dtype)
        rows = hidden.flatten(1, 2)
        for block in self.transformer_blocks:
            rows = block(rows, **others)
        last: Any = self.last
        found = last.product(rows.reshape(hidden.shape), x).permute(0, 3, 1, 2)
        return Transformer2DModelOutput(sample=found) if return_dict else (found,)
