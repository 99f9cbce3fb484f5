"""A transformer that predicts a flow, calibrated and quantized in memory."""

from __future__ import annotations

import pytest
import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from torch import nn

import edadm
from edadm.networks.inputs import Rows
from edadm.nn.insert import quantized_layers
from edadm.quant import ranges

from ..networks.mmdit import scheduler, tiny_mmdit

BITS = {
    "base": "mmdit_w4a8",
    "range_bins": 64,
    "range_batch_size": 5,
}
LEARNING = {"base": "seed_imagenet_w4", "iterations": 2, "batch_size": 4}


def images(transformer: nn.Module) -> torch.Tensor:
    """Latents of two images, in five steps and with guidance."""
    nothing = dict.fromkeys(
        ("vae", "tokenizer", "tokenizer_2", "tokenizer_3", "text_encoder", "text_encoder_2", "text_encoder_3")
    )
    pipeline = StableDiffusion3Pipeline(transformer=transformer, scheduler=scheduler(), **nothing)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(1)
    told = {
        name: torch.randn(2, *shape, generator=generator)
        for name, shape in {
            "prompt_embeds": (5, 24),
            "negative_prompt_embeds": (5, 24),
            "pooled_prompt_embeds": (20,),
            "negative_pooled_prompt_embeds": (20,),
        }.items()
    }
    size = 8 * pipeline.vae_scale_factor
    found: torch.Tensor = pipeline(
        **told, height=size, width=size, num_inference_steps=5, output_type="latent", generator=generator
    ).images
    return found


def test_a_flow_is_calibrated_quantized_and_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "THRESHOLDS", 10)
    network = tiny_mmdit().eval()
    rows = edadm.calibrate(network, lambda: images(network), {"base": "uniform", "size": 10, "held_out": 0})
    assert isinstance(rows, Rows)
    given = scheduler()
    given.set_timesteps(5)
    assert sorted(set(rows.timesteps.tolist())) == sorted(given.timesteps.tolist())
    assert rows.tensors["context"].shape == (10, 5, 24)
    assert rows.tensors["pooled"].shape == (10, 20)
    quantized = edadm.quantize(network, rows, BITS, LEARNING)
    assert isinstance(quantized, SD3Transformer2DModel)
    assert {layer.weight_quantizer.bits for layer in quantized_layers(quantized).values()} == {4, 8}
    full, rounded = images(network), images(quantized)
    assert 0 < (full - rounded).norm() / full.norm() < 0.5
