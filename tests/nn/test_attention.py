"""The attention with quantized operands."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor

from edadm.nn.attention import QuantizedAttnProcessor
from edadm.nn.quantizer import Quantizer

from ..conftest import reinitialise


def attention(heads: int = 1, cross: int | None = None) -> Attention:
    module = Attention(
        32, cross_attention_dim=cross, heads=heads, dim_head=32 // heads, bias=True, residual_connection=True, norm_num_groups=8
    )
    reinitialise(module, 2)
    module.set_processor(AttnProcessor())
    return module.eval()


def inputs() -> torch.Tensor:
    return torch.randn(2, 32, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("heads", [1, 4])
def test_with_disabled_quantizers_it_computes_what_diffusers_computes_bit_for_bit(heads: int) -> None:
    module, x = attention(heads), inputs()
    expected = module(x)
    module.set_processor(QuantizedAttnProcessor(8, 8))
    for quantizer in module.modules():
        if isinstance(quantizer, Quantizer):
            quantizer.enabled = False
    assert torch.equal(module(x), expected)


def test_tokens_with_a_context_are_attended_like_in_diffusers() -> None:
    module = attention(heads=4, cross=12)
    generator = torch.Generator().manual_seed(1)
    tokens, context = torch.randn(2, 9, 32, generator=generator), torch.randn(2, 5, 12, generator=generator)
    expected = module(tokens, encoder_hidden_states=context)
    module.set_processor(QuantizedAttnProcessor(8, 8))
    for quantizer in module.modules():
        if isinstance(quantizer, Quantizer):
            quantizer.enabled = False
    assert torch.equal(module(tokens, encoder_hidden_states=context), expected)


@pytest.mark.parametrize("operand", ["query", "key", "value", "softmax"])
def test_every_operand_of_the_matrix_products_is_quantized(operand: str) -> None:
    module, x = attention(), inputs()
    processor = QuantizedAttnProcessor(8, 8)
    module.set_processor(processor)
    seen: dict[str, torch.Tensor] = {}
    for name in ("query", "key", "value", "softmax"):
        quantizer = getattr(processor, f"{name}_quantizer")
        quantizer.enabled = False
        quantizer.register_forward_pre_hook(lambda _, args, n=name: seen.__setitem__(n, args[0]))
    exact = module(x)
    quantizer = getattr(processor, f"{operand}_quantizer")
    quantizer.enabled = True
    zero_point = 0.0 if operand == "softmax" else 128.0
    quantizer.set_grid(torch.tensor([seen[operand].abs().max().item() / 12]), torch.tensor([zero_point]))
    error = (module(x) - exact).abs().max().item()
    assert 1e-5 < error < 1
    assert seen["softmax"].min() >= 0
    torch.testing.assert_close(seen["softmax"].sum(-1), torch.ones(2, 16))


def test_widths_of_the_softmax_and_the_projections_are_separate() -> None:
    processor = QuantizedAttnProcessor(6, 8)
    assert [processor.query_quantizer.bits, processor.key_quantizer.bits, processor.value_quantizer.bits] == [6, 6, 6]
    assert processor.softmax_quantizer.bits == 8
