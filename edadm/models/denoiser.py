"""The network as the sampler sees it."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor, nn


class Denoiser:
    """Predicts eps from `x_t` and `t`; the place where condition and guidance of other families will live."""

    def __init__(self, unet: nn.Module):
        self.unet = unet

    def __call__(self, x: Float[Tensor, "n c h w"], t: Int[Tensor, " n"]) -> Float[Tensor, "n c h w"]:
        return self.unet(x, t, return_dict=False)[0]
