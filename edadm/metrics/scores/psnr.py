"""How far quantized images are from the full-precision images of the same noise."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

# Two renderings of one picture rounded to 8 bits differ by about this mean square; identical images count as
# that far apart.
ROUNDING_ERROR = 1 / 12


def psnr(images: UInt8[Tensor, "n c h w"], references: UInt8[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """Peak signal-to-noise ratio of each image in dB, at most 58.9."""
    error = (images.float() - references.float()).square().flatten(1).mean(1).clamp(min=ROUNDING_ERROR)
    return 10 * torch.log10(255**2 / error)
