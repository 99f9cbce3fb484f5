"""The ermongroup/ddim U-Net as a diffusers module."""

from __future__ import annotations

from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor

from edadm.config.schema import UNetArchitecture


def build_unet(architecture: UNetArchitecture) -> UNet2DModel:
    """A randomly initialised `UNet2DModel` with the arithmetic of ermongroup/ddim's network.

    The settings that are not sizes (bottom-right padding of stride-2 convolutions, sine before cosine, epsilon 1e-6,
    one attention head) are those of the original code; outputs agree with it to rounding (tests/models).
    """
    widths = [architecture.channels * multiplier for multiplier in architecture.multipliers]
    resolutions = [architecture.image_size >> level for level in range(len(widths))]
    attends = [resolution in architecture.attention_resolutions for resolution in resolutions]
    unet = UNet2DModel(
        sample_size=architecture.image_size,
        in_channels=architecture.in_channels,
        out_channels=architecture.in_channels,
        block_out_channels=widths,
        layers_per_block=architecture.blocks_per_level,
        down_block_types=["AttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        up_block_types=["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        attention_head_dim=None,
        norm_num_groups=architecture.norm_groups,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    )
    for module in unet.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())  # the explicit products, as in the quantized network, not a fused kernel
    return unet
