"""Quantized checkpoints of every family are rebuilt from their files alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import Attention

from edadm.config.schema import Bits
from edadm.deploy.checkpoint import load_quantized
from edadm.deploy.grids import quantized_copy
from edadm.networks.build import build_network
from edadm.networks.families import network_call
from edadm.nn.insert import activation_quantizers

from ..networks.families import FAMILIES, random_network, tiny
from .conftest import Family


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_loaded_network_predicts_what_the_saved_one_does(
    family: str, quantized_family: Callable[[str, Path], Family], tmp_path: Path
) -> None:
    unet, quantized, rows = quantized_family(family, tmp_path / "quantized.safetensors")
    architecture = tiny(family).architecture
    loaded = load_quantized(tmp_path / "quantized.safetensors")
    assert torch.equal(network_call(loaded, rows), network_call(quantized, rows))
    assert not torch.equal(network_call(loaded, rows), network_call(unet, rows))
    for module in loaded.modules():
        if isinstance(module, Attention) and architecture.family == "ldm":
            assert module.heads == (
                architecture.heads or module.inner_dim // (architecture.head_channels or 1)
            )
            assert module.operands_scaled


@torch.no_grad()
def test_unconditional_attention_scales_query_and_key_before_they_are_quantized() -> None:
    unet = random_network(build_network(tiny("ldm8_church").architecture), 1)
    quantized = quantized_copy(unet, Bits(layers={}))
    seen: dict[str, torch.Tensor] = {}
    for name, quantizer in activation_quantizers(quantized).items():
        quantizer.enabled = False
        quantizer.register_forward_hook(lambda _, inputs, output, n=name: seen.__setitem__(n, inputs[0]))
    attention = quantized.get_submodule("mid_block.attentions.0")
    projected: list[torch.Tensor] = []
    attention.to_q.register_forward_hook(lambda _, inputs, output: projected.append(output))
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    t = torch.tensor([3, 900])
    assert (quantized(x, t).sample - unet(x, t).sample).abs().max() < 1e-5
    width = attention.inner_dim // attention.heads
    query = seen["mid_block.attentions.0.processor.query_quantizer"]
    torch.testing.assert_close(query, projected[0] * width**-0.25)
