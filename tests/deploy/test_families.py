"""Quantized checkpoints of every family are rebuilt from their files alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import Attention

from edadm.config.schema import Bits
from edadm.deploy.checkpoint import load_quantized, quantized_copy, save_quantized
from edadm.models.denoiser import network_call
from edadm.models.unet import build_unet
from edadm.nn.surgery import activation_quantizers
from edadm.quant import ranges
from edadm.reconstruction.observe import set_ranges

from ..models.families import FAMILIES, random_network, tiny


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_loaded_network_predicts_what_the_saved_one_does(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "THRESHOLDS", 10)
    architecture, bits = tiny(family).architecture, Bits(weights=4, activations=8, range_bins=64, range_batch_size=4)
    unet = random_network(build_unet(architecture), 1).to(memory_format=torch.channels_last)
    quantized, generator = quantized_copy(unet, bits), torch.Generator().manual_seed(2)
    rows = {"latents": torch.randn(4, architecture.in_channels, 8, 8, generator=generator), "timesteps": torch.tensor([9, 400, 700, 990])}
    if architecture.context_channels:
        rows["context"] = torch.randn(4, 5, architecture.context_channels, generator=generator)
    set_ranges(quantized, rows["latents"], rows["timesteps"], bits, context=rows.get("context"))
    save_quantized(quantized, tmp_path / "quantized.safetensors", architecture, bits, {})
    loaded = load_quantized(tmp_path / "quantized.safetensors")
    assert torch.equal(network_call(loaded, rows), network_call(quantized, rows))
    assert not torch.equal(network_call(loaded, rows), network_call(unet, rows))
    for module in loaded.modules():
        if isinstance(module, Attention) and architecture.family == "ldm":
            assert module.heads == (architecture.heads or module.inner_dim // (architecture.head_channels or 1))
            assert module.operands_scaled


@torch.no_grad()
def test_unconditional_attention_scales_query_and_key_before_they_are_quantized(monkeypatch: pytest.MonkeyPatch) -> None:
    unet = random_network(build_unet(tiny("ldm8_church").architecture), 1)
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
