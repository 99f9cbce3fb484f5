"""Tiny networks of diffusers, and pipelines of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, UNet2DConditionModel, UNet2DModel

from edadm.networks.inputs import Rows

BITS = {"base": "w4a8", "range_bins": 64, "range_batch_size": 4}
LEARNING = {"base": "fbr_w4", "iterations": 2, "batch_size": 4, "unit_iterations": {}}


def tiny_unet() -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=8,
    ).eval()


def tiny_conditional() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=2,
        cross_attention_dim=12,
    ).eval()


def pipeline(unet: UNet2DModel) -> DDIMPipeline:
    made = DDIMPipeline(unet, DDIMScheduler())
    made.set_progress_bar_config(disable=True)
    return made


def images(unet: Any, steps: int = 5, count: int = 6) -> Callable[[], Any]:
    """What makes images of one noise with a network."""
    made = pipeline(unet)

    def run() -> Any:
        told = {"batch_size": count, "num_inference_steps": steps, "output_type": "np"}
        return made(generator=torch.Generator().manual_seed(0), **told).images

    return run


@pytest.fixture(scope="session")
def unet() -> UNet2DModel:
    """A float network that tests leave as it is."""
    return tiny_unet()


@pytest.fixture(scope="session")
def rows(unet: UNet2DModel) -> Rows:
    """Its calibration rows."""
    import edadm

    return edadm.calibrate(unet, images(unet), {"base": "tdac", "size": 8, "held_out": 0})
