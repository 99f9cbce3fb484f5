"""The full-precision network."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import Tensor, nn

from edadm.errors import EdadmError
from edadm.networks.build import build_network
from edadm.networks.settings.architecture import Architecture
from edadm.sampling.denoiser import Denoiser


def test_the_cifar_network_has_the_published_number_of_parameters_and_layers() -> None:
    with torch.device("meta"):
        unet = build_network(Architecture())
    assert sum(parameter.numel() for parameter in unet.parameters()) == 35_746_307
    layers = [module for module in unet.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) == 113
    assert sum(layer.weight.numel() for layer in layers) == 35_691_264


def test_attentions_multiply_explicitly_with_one_head() -> None:
    with torch.device("meta"):
        attentions = [
            module for module in build_network(Architecture()).modules() if isinstance(module, Attention)
        ]
    assert len(attentions) == 6
    assert all(
        type(attention.processor) is AttnProcessor and attention.heads == 1 for attention in attentions
    )


def test_rows_of_a_batch_do_not_touch_each_other(
    float_unet: UNet2DModel, calibration: tuple[Tensor, Tensor]
) -> None:
    x, t = calibration
    torch.testing.assert_close(
        float_unet(x, t).sample[2:3], float_unet(x[2:3], t[2:3]).sample, rtol=1e-4, atol=1e-5
    )


def test_the_denoiser_returns_the_prediction_itself(
    float_unet: UNet2DModel, calibration: tuple[Tensor, Tensor]
) -> None:
    assert torch.equal(Denoiser(float_unet)(*calibration), float_unet(*calibration).sample)


def test_a_network_that_diffusers_cannot_build_is_refused() -> None:
    one = {
        "block_out_channels": (32,),
        "down_block_types": ("CrossAttnDownBlock2D",),
        "up_block_types": ("CrossAttnUpBlock2D",),
    }
    diffusers = {"class_name": "UNet2DConditionModel", "transformer_layers_per_block": (), **one}
    sizes = {
        "family": "diffusers",
        "image_size": 16,
        "in_channels": 4,
        "context_channels": 8,
        "diffusers": diffusers,
    }
    with pytest.raises(EdadmError, match="diffusers builds no UNet2DConditionModel of these settings"):
        build_network(Architecture.model_validate(sizes))
