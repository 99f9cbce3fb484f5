"""The U-Net of CompVis/latent-diffusion without condition."""

from __future__ import annotations

from diffusers.models.unets.unet_2d import UNet2DModel

from edadm.networks.settings.architecture import Architecture
from edadm.networks.unet.base import UNetFamily, attended_levels, attentions, sizes_of


class Ldm(UNetFamily):
    """U-Nets of CompVis without condition: symmetric padding, cosine before sine, epsilon 1e-5.

    A diffusers configuration knows a head's channels only; a number of heads is put into each attention
    afterwards.
    """

    name = "ldm"
    layouts = ("compvis",)

    def network(self, architecture: Architecture) -> UNet2DModel:
        attends = attended_levels(architecture)
        resnet = architecture.resample == "res_block"
        plain = ("DownBlock2D", "UpBlock2D")
        if resnet:
            plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")
        unet = UNet2DModel(
            **sizes_of(architecture),
            down_block_types=["AttnDownBlock2D" if a else plain[0] for a in attends],
            up_block_types=["AttnUpBlock2D" if a else plain[1] for a in reversed(attends)],
            attention_head_dim=architecture.head_channels or architecture.channels,
            norm_eps=1e-5,
            downsample_padding=1,
            downsample_type="resnet" if resnet else "conv",
            upsample_type="resnet" if resnet else "conv",
            resnet_time_scale_shift="scale_shift" if architecture.scale_shift else "default",
            attn_norm_num_groups=architecture.norm_groups,  # else the middle has no norm with scale_shift
            flip_sin_to_cos=True,
            freq_shift=0,
        )
        for attention in attentions(unet):
            attention.operands_scaled = True  # query and key, before they are quantized (method, 3.4)
            if architecture.heads:
                attention.heads = architecture.heads
                attention.scale = (attention.inner_dim // architecture.heads) ** -0.5
        return unet


FAMILY = Ldm()
