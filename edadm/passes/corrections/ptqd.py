"""PTQD's correction (arXiv 2305.10657): quantization noise is split by its correlation with the prediction.

The noise of eps at a timestep is `k eps + rest`: k by linear regression over all elements of the predictions
at calibration rows, and the rest uncorrelated. The quantized prediction less the mean of the rest of each
channel, over 1 + k, takes the place of eps; the variance of what is left goes off the noise that the sampler
adds, of which DDIM with eta 0 has none. The paper's mixed precision over steps is no part of this.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from edadm.errors import EdadmError
from edadm.passes.corrections.pairs import Pairs
from edadm.sampling.correction import Correction


def fit_ptqd(pairs: Pairs) -> Correction:
    """PTQD's correction of each timestep.

    Raises:
        EdadmError: a quantized prediction has nothing of the float one.
    """
    return pairs.by_timestep(ptqd_line)


def ptqd_line(
    exact: Float[Tensor, "m c h w"], quantized: Float[Tensor, "m c h w"]
) -> dict[str, Float[Tensor, "..."]]:
    """Scale and shift of each channel at one timestep, and the variance that is left.

    Raises:
        EdadmError: k is -1 or less.
    """
    noise, centred = quantized - exact, exact - exact.mean()
    k = (noise * centred).sum() / centred.square().sum().clamp(min=torch.finfo(exact.dtype).tiny)
    if not k > -1:
        raise EdadmError(
            f"quantization noise is {k:.2f} times the prediction, so that nothing of it is left to correct; "
            "use more bits, or no `correction`"
        )
    rest = noise - k * exact
    bias = rest.mean((0, 2, 3))
    left = (rest - bias[:, None, None]).square().mean()
    return {"scale": (1 / (1 + k)).expand_as(bias), "shift": -bias / (1 + k), "variance": left / (1 + k) ** 2}
