"""The network as the sampler sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from edadm.conditions.condition import Condition
from edadm.config.schema import Model
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows, replaced
from edadm.sampling.correction import AppliedCorrection
from edadm.sampling.replay import Replay
from edadm.sampling.samplers.ddim import Times
from edadm.sampling.schedule import alphas_cumprod

Precision = Literal["fp32", "bf16", "fp16"]
Kind = Literal["eps", "v", "sample", "flow"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Prediction:
    """What a network predicts, and how what a sampler takes, which is eps, follows from it.

    A flow is taken as it is by the one sampler of flows: at the beginning eps would be the state itself.
    With x_t = a x_0 + s eps, a^2 = alpha-bar and s^2 = 1 - alpha-bar, the velocity is v = a eps - s x_0
    (arXiv 2202.00512).

    Args:
        kind: the noise, the velocity, the image x_0, or a flow.
        alphas_cumprod: alpha-bar of every timestep, below 1; not needed where the noise or a flow is
            predicted.
    """

    def __init__(self, kind: Kind = "eps", alphas_cumprod: Float[Tensor, " timesteps"] | None = None):
        assert kind in ("eps", "flow") or alphas_cumprod is not None, (
            "eps follows from other predictions by the noise schedule"
        )
        self.kind, self._alphas = kind, alphas_cumprod

    @classmethod
    def of(cls, model: Model) -> Prediction:
        """What a preset's network predicts."""
        is_flow = model.prediction == "flow"
        return cls(model.prediction, None if is_flow else alphas_cumprod(model.schedule))

    def eps(
        self, predicted: Float[Tensor, "n c h w"], x: Float[Tensor, "n c h w"], t: Times
    ) -> Float[Tensor, "n c h w"]:
        """The noise in `x_t`, or the flow there."""
        if self._alphas is None or self.kind in ("eps", "flow"):
            return predicted
        alphas = self._alphas[t.cpu()].double().reshape(-1, 1, 1, 1)
        a, s = (part.sqrt().to(x.device, x.dtype) for part in (alphas, 1 - alphas))
        return a * predicted + s * x if self.kind == "v" else (x - a * predicted) / s


_EPS = Prediction()


@runtime_checkable
class Starting(Protocol):
    """A condition whose images a sampler begins from."""

    def starts(self, indices: Sequence[int]) -> Tensor:
        """The latents of these images, without noise."""


def guided_mixture(
    evaluations: Sequence[Float[Tensor, "n c h w"]], guidance: float, image_guidance: float = 1.0
) -> Float[Tensor, "n c h w"]:
    """What guidance makes of a network's evaluations, in the order of `networks.inputs.replaced`."""
    without, *seen, given = evaluations
    base = start = without
    if seen:
        (base,) = seen
        start = without + image_guidance * (base - without)
    return start + guidance * (given - base)


class Denoiser:
    """A network as a sampler sees it: eps from `x_t` and `t`, with condition and guidance inside.

    The guidance is classifier-free (arXiv 2207.12598).

    With a condition, a guidance scale above 1 doubles the batch: unconditional rows first, as in the CompVis
    samplers. A condition with an `image_guidance` triples it; that scale leads from no image to the image
    (arXiv 2211.09800, eq. 3). Such a denoiser must be told which images its rows are: `denoise.on(indices)`.
    Guidance mixes what the network predicts; eps follows from the mixture, and is the mixture of all eps.

    Args:
        unet: the network.
        condition: what it is told about each image.
        guidance: 1 leaves out the unconditional rows.
        precision: arithmetic of the network; the prediction is fp32 all the same.
        prediction: what the network predicts.
        replay: of the network's calls, on a GPU.
        correction: of eps, after guidance, on the device of the latents.

    Attributes:
        start: latents of images that a sampler run begins from; None where it begins from noise.
    """

    def __init__(
        self,
        unet: nn.Module,
        condition: Condition | None = None,
        guidance: float = 1.0,
        precision: Precision = "fp32",
        prediction: Prediction = _EPS,
        replay: Replay | None = None,
        correction: AppliedCorrection | None = None,
    ):
        self.unet, self.condition, self.guidance, self.precision = unet, condition, guidance, precision
        self.prediction, self.replay, self.correction = prediction, replay, correction
        self._told: Mapping[str, Tensor] | None = None
        self._told_nothing: Mapping[str, Tensor] = {}
        self.start: Tensor | None = None

    @property
    def is_guided(self) -> bool:
        """Whether each step evaluates the network on unconditional rows, too."""
        return self.condition is not None and self.guidance != 1

    @property
    def _image_guidance(self) -> float:
        """The scale towards the image, of the one kind of condition whose image guidance drops."""
        scale: float | None = getattr(self.condition, "image_guidance", None)
        return 1.0 if scale is None else scale

    def on(self, indices: Sequence[int]) -> Denoiser:
        """The denoiser of the images `indices`, in that order."""
        if self.condition is None:
            return self
        known = (self.unet, self.condition, self.guidance, self.precision, self.prediction, self.replay)
        bound = Denoiser(*known, self.correction)
        bound._told = self.condition.rows(indices)
        if isinstance(self.condition, Starting):
            bound.start = self.condition.starts(indices)
        if self.is_guided:
            bound._told_nothing = self.condition.unconditional()
        return bound

    def __call__(self, x: Float[Tensor, "n c h w"], t: Times) -> Float[Tensor, "n c h w"]:
        assert self.condition is None or self._told is not None, (
            "say which images these are: denoise.on(indices)"
        )
        rows = Rows({"latents": x, "timesteps": t, **(self._told or {})})
        rows = rows.guided(self._told_nothing) if self.is_guided else rows
        predicted = self._predict(rows) if self.replay is None else self.replay(self._predict, rows)
        if self.is_guided:
            evaluations = predicted.chunk(len(replaced(self._told_nothing)))
            predicted = guided_mixture(evaluations, self.guidance, self._image_guidance)
        eps = self.prediction.eps(predicted, x, t)
        return eps if self.correction is None else self.correction(eps, x, t)

    def excess_variance(self, timestep: int) -> float:
        """The variance of quantization noise in eps that a sampler takes off the noise it adds."""
        return 0.0 if self.correction is None else self.correction.variance(timestep)

    def _predict(self, rows: Rows) -> Float[Tensor, "n c h w"]:
        if self.precision == "fp32":
            return network_call(self.unet, rows)
        with torch.autocast(rows.device.type, _DTYPES[self.precision]):
            return network_call(self.unet, rows).float()
