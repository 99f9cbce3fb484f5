"""From latents to images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import AutoencoderKL, VQModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from jaxtyping import Float
from torch import Tensor

from edadm.networks.settings.parts import Autoencoder


def build_autoencoder(settings: Autoencoder) -> VQModel | AutoencoderKL:
    """A randomly initialised autoencoder that computes as CompVis' `VQModelInterface` or `AutoencoderKL`."""
    levels = len(settings.multipliers)
    sizes = {
        "in_channels": settings.image_channels,
        "out_channels": settings.image_channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": [settings.channels * multiplier for multiplier in settings.multipliers],
        "layers_per_block": settings.blocks_per_level,
        "latent_channels": settings.latent_channels,
        "norm_num_groups": settings.norm_groups,
        "scaling_factor": settings.scale
        or 1.0,  # for readers of a saved configuration; `LatentDecoder` scales
    }
    if settings.kind == "vq":
        autoencoder = VQModel(**sizes, num_vq_embeddings=settings.codes)
    else:
        around = {"use_quant_conv": settings.quant_conv, "use_post_quant_conv": settings.quant_conv}
        autoencoder = AutoencoderKL(**sizes, **around, shift_factor=settings.shift or None)
    for module in autoencoder.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())
    return autoencoder


MOST = 8  # images decoded at once
PIXELS = MOST * 512**2  # of them all, for which a decoder needs far more memory than the U-Net


class LatentDecoder:
    """Decodes what a sampler ends with; a vector-quantized latent is snapped to the codebook first.

    Args:
        autoencoder: from `build_autoencoder`, with weights.
        scale: the sampler's latents are the autoencoder's times this number,
        shift: once this one is taken off.
    """

    def __init__(self, autoencoder: VQModel | AutoencoderKL, scale: float, shift: float = 0.0):
        self.autoencoder, self.scale, self.shift = autoencoder, scale, shift
        self.factor = 2 ** (len(autoencoder.config["block_out_channels"]) - 1)

    def at_once(self, shape: Sequence[int]) -> int:
        """How many latents of a shape (channels, height, width) are decoded at once.

        At most `MOST`, and fewer where these have more than `PIXELS` together.
        """
        _, height, width = shape
        return max(1, min(MOST, PIXELS // (height * width * self.factor**2)))

    @torch.no_grad()
    def __call__(self, latents: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 i j"]:
        """Images, about in [-1, 1]."""
        parts = (latents / self.scale + self.shift).split(self.at_once(latents.shape[1:]))
        return torch.cat([self.autoencoder.decode(part, return_dict=False)[0] for part in parts])
