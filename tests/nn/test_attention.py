"""The attention with quantized operands."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, SlicedAttnProcessor
from diffusers.models.transformers.transformer_flux import FluxAttention
from torch import nn

from edadm.config.schema import Bits
from edadm.errors import EdadmError
from edadm.networks.units.site import sites_of
from edadm.nn.attention import QuantizedAttention, QuantizedAttnProcessor, unknown_in
from edadm.nn.insert import disabled, quantize_network
from edadm.nn.quantizer import Quantizer

from ..conftest import reinitialise


def attention(heads: int = 1, cross: int | None = None) -> Attention:
    module = Attention(
        32,
        cross_attention_dim=cross,
        heads=heads,
        dim_head=32 // heads,
        bias=True,
        residual_connection=True,
        norm_num_groups=8,
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
    assert [processor.query_quantizer.bits, processor.key_quantizer.bits, processor.value_quantizer.bits] == [
        6,
        6,
        6,
    ]
    assert processor.softmax_quantizer is not None
    assert processor.softmax_quantizer.bits == 8


def test_weights_without_a_width_stay_in_floating_point() -> None:
    module, x = attention(), inputs()
    expected = module(x)
    processor = QuantizedAttnProcessor(8, None)
    module.set_processor(processor)
    for quantizer in (processor.query_quantizer, processor.key_quantizer, processor.value_quantizer):
        quantizer.enabled = False
    assert torch.equal(module(x), expected)


UNKNOWN = [
    ({"qk_norm": "layer_norm"}, "norm_q, norm_k"),
    ({"added_kv_proj_dim": 12, "context_pre_only": False}, "add_k_proj, add_v_proj, add_q_proj, to_add_out"),
    ({"spatial_norm_dim": 8}, "spatial_norm"),
    ({"cross_attention_dim": 12, "cross_attention_norm": "layer_norm"}, "norm_cross"),
    ({"kv_heads": 1}, "kv_heads"),
    ({"scale_qk": False}, "scale_qk"),
    ({"is_causal": True}, "is_causal"),
    ({"pre_only": True}, "pre_only"),
    ({"processor": SlicedAttnProcessor(1)}, "Attention with SlicedAttnProcessor"),
]


@pytest.mark.parametrize(("settings", "named"), UNKNOWN)
def test_an_attention_with_something_unknown_is_refused_by_name_and_the_network_left_as_it_was(
    settings: dict, named: str
) -> None:
    network = nn.ModuleDict(
        {"layer": nn.Linear(32, 32), "middle": Attention(32, heads=4, dim_head=8, **settings)}
    )
    sentence = f"the attention 'middle' has {named}, which edadm cannot quantize"
    with pytest.raises(EdadmError, match=sentence):
        quantize_network(network, Bits(layers={}), sites_of(network, {}))
    assert type(network["layer"]) is nn.Linear


@pytest.mark.parametrize("kind", [nn.MultiheadAttention, FluxAttention])
def test_an_attention_of_another_class_is_refused(kind: type[nn.Module]) -> None:
    sizes = {"query_dim": 32, "heads": 4, "dim_head": 8}
    other = kind(32, 4) if kind is nn.MultiheadAttention else kind(**sizes)
    network = nn.ModuleDict({"layer": nn.Linear(32, 32), "middle": other})
    sentence = f"the attention 'middle' has the arithmetic of {kind.__name__}, which edadm cannot quantize"
    with pytest.raises(EdadmError, match=sentence):
        quantize_network(network, Bits(layers={}), sites_of(network, {}))
    assert type(network["layer"]) is nn.Linear


def test_fused_projections_are_refused() -> None:
    module = Attention(32, heads=4, dim_head=8)
    module.fuse_projections()
    assert unknown_in(module) == ["to_qkv", "fused_projections"]


KNOWN = [
    {},
    {"bias": True, "out_bias": False},
    {"norm_num_groups": 8, "residual_connection": True},
    {"rescale_output_factor": 1.7, "residual_connection": True},
    {"upcast_attention": True, "upcast_softmax": True},
    {"cross_attention_dim": 12},
    {"out_dim": 32, "dropout": 0.3},
]


@pytest.mark.parametrize("settings", KNOWN)
@pytest.mark.parametrize("masked", ["not", "by sample", "by query", "by head"])
@torch.no_grad()
def test_what_is_known_computes_what_diffusers_computes(settings: dict, masked: str) -> None:
    network = nn.ModuleDict(
        {"middle": Attention(32, heads=4, dim_head=8, processor=AttnProcessor(), **settings)}
    ).eval()
    reinitialise(network, 3)
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randn(2, 9, 32, generator=generator)
    context = torch.randn(2, 5, 12, generator=generator) if "cross_attention_dim" in settings else None
    keys = 9 if context is None else 5
    rows = {"not": None, "by sample": (2, 1, keys), "by query": (2, 9, keys), "by head": (8, 9, keys)}[masked]
    mask = None if rows is None else -3 * torch.rand(rows, generator=generator)
    expected = network["middle"](tokens, encoder_hidden_states=context, attention_mask=mask)
    quantize_network(network, Bits(layers={}), sites_of(network, {}))
    middle = network["middle"]
    assert isinstance(middle, QuantizedAttention)
    with disabled(network):
        assert torch.equal(middle(tokens, encoder_hidden_states=context, attention_mask=mask), expected)


def test_masks_that_fit_nothing_are_refused_in_a_sentence() -> None:
    module = attention(heads=4)
    QuantizedAttention.of(module, QuantizedAttnProcessor(8, 8))
    for shape in ((2, 1, 5), (1, 1, 16), (3, 1, 16)):
        with pytest.raises(
            EdadmError,
            match=f"an attention mask of {shape[0]} x {shape[2]} does not fit 2 samples of 16 tokens",
        ):
            module(inputs(), attention_mask=torch.zeros(shape))


def test_a_quantized_attention_keeps_its_processor_also_as_a_copy() -> None:
    module = attention(heads=4)
    QuantizedAttention.of(module, QuantizedAttnProcessor(8, 8))
    for one in (module, copy.deepcopy(module)):
        kept = one.processor
        one.set_processor(kept)
        one.set_attention_slice(1)
        one.set_attention_slice(None)
        one.set_use_memory_efficient_attention_xformers(False)
        for call in (
            lambda: one.set_processor(AttnProcessor()),  # noqa: B023 - called at once
            lambda: one.set_use_memory_efficient_attention_xformers(True),  # noqa: B023
            lambda: one.set_use_npu_flash_attention(False),  # noqa: B023
            lambda: one.fuse_projections(),  # noqa: B023
        ):
            with pytest.raises(EdadmError, match="of a quantized network"):
                call()
        assert one.processor is kept
        assert sum(isinstance(part, Quantizer) for part in one.modules()) == 4
