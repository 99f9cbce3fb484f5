"""D2-DPM's correction (arXiv 2501.08180), deterministic (D-D2): a joint Gaussian of prediction and noise.

At each timestep an element of the quantized prediction and its noise are jointly Gaussian, the same for all
elements. From a prediction goes the mean of the noise given that prediction; the variance of the noise given
it goes off the noise that the sampler adds, if any. The stochastic variant, which draws noise, is not built.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from edadm.passes.corrections.pairs import Pairs
from edadm.sampling.correction import Correction


def fit_d2_dpm(pairs: Pairs) -> Correction:
    """D2-DPM's correction of each timestep."""
    return pairs.by_timestep(d2_dpm_line)


def d2_dpm_line(
    exact: Float[Tensor, "m c h w"], quantized: Float[Tensor, "m c h w"]
) -> dict[str, Float[Tensor, "..."]]:
    """Scale and shift at one timestep, equal in all channels, and the variance that is left."""
    noise = quantized - exact
    of_prediction, of_noise = quantized - quantized.mean(), noise - noise.mean()
    variance, together = of_prediction.square().mean(), (of_prediction * of_noise).mean()
    slope = together / variance.clamp(min=torch.finfo(exact.dtype).tiny)
    shift = slope * quantized.mean() - noise.mean()
    left = (of_noise.square().mean() - slope * together).clamp(min=0)
    channels = quantized.shape[1]
    return {"scale": (1 - slope).expand(channels), "shift": shift.expand(channels), "variance": left}
