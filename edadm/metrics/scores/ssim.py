"""Structural similarity of images to others of the same noise."""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

WIDTH, DEVIATION = 11, 1.5  # pixels of the window
LUMINANCE, CONTRAST = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def ssim(images: UInt8[Tensor, "n c h w"], references: UInt8[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    """SSIM (Wang et al., IEEE TIP 13(4), 2004), at most 1: mean over channels and whole windows.

    Windows are Gaussian, 11 pixels wide with a standard deviation of 1.5.
    """
    window = torch.exp(-((torch.arange(WIDTH) - WIDTH // 2) ** 2) / (2 * DEVIATION**2))
    window = window / window.sum()

    def averaged(values: Float[Tensor, "n c h w"]) -> Float[Tensor, "n*c 1 _ _"]:
        rows = values.flatten(0, 1)[:, None]
        return F.conv2d(F.conv2d(rows, window[None, None, :, None]), window[None, None, None])

    x, y = images.float(), references.float()
    mean_x, mean_y = averaged(x), averaged(y)
    square_x, square_y = averaged(x * x) - mean_x**2, averaged(y * y) - mean_y**2
    product = averaged(x * y) - mean_x * mean_y
    alike = (2 * mean_x * mean_y + LUMINANCE) * (2 * product + CONTRAST)
    values = alike / ((mean_x**2 + mean_y**2 + LUMINANCE) * (square_x + square_y + CONTRAST))
    return values.view(len(images), -1).mean(1)
