"""Q-Sched's correction (arXiv 2509.01624): two coefficients for all steps, of state and of prediction.

Weights stay as they are; each step of the sampler multiplies x_t and eps by a coefficient first, while the
network sees x_t itself. The paper learns the two from images of few-step text models, by a loss without
reference (text alignment and image quality). Here models need no text, and full precision is at hand: the two
are those for which steps from the calibration rows come closest to steps with the float network, in squared
error.
"""

from __future__ import annotations

import torch

from edadm.errors import EdadmError
from edadm.passes.corrections.pairs import Pairs
from edadm.sampling.correction import Correction


def fit_q_sched(pairs: Pairs) -> Correction:
    """Q-Sched's correction: `scale` is the coefficient of eps, `of_state` what that of x_t means in eps.

    A step makes a x + b eps; a c x + b d eps is the same step with d eps + (c - 1) a / b x in place of eps.

    Raises:
        EdadmError: steps of the sampler are not linear in x_t and eps alone.
    """
    if pairs.factors is None:
        raise EdadmError(
            "the correction 'q_sched' changes steps of DDIM; set the sampler's method: ddim, or take another "
            "correction"
        )
    of_state, of_eps = torch.tensor(pairs.factors, dtype=torch.float64).unbind(1)
    steps = {timestep: step for step, timestep in enumerate(pairs.visited)}
    at = torch.tensor([steps[timestep] for timestep in pairs.timesteps.tolist()])
    a, b = (factors[at][:, None, None, None] for factors in (of_state, of_eps))
    moved = torch.stack([(a * pairs.latents).flatten(), (b * pairs.quantized).flatten()])
    change, scale = torch.linalg.solve(moved @ moved.T, moved @ (b * pairs.exact).flatten())
    channels = pairs.exact.shape[1]
    return Correction.of(
        pairs.visited,
        scale.expand(len(steps), channels),
        torch.zeros(len(steps), channels),
        change * of_state / of_eps,
    )
