"""What the float and the quantized network predict at the same calibration rows, as a sampler sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from edadm.config.schema import Model
from edadm.errors import EdadmError
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows
from edadm.sampling.correction import Correction
from edadm.sampling.denoiser import Prediction, guided_mixture
from edadm.sampling.schedule import sampler_timesteps, step_factors


@dataclass(frozen=True)
class Pairs:
    """Pairs of predictions, eps after guidance, of the float and of the quantized network at the same states.

    Attributes:
        timesteps: of each state.
        latents: the states x_t.
        exact: what the float network predicts there.
        quantized: what the quantized one does.
        visited: the timesteps of the sampler, noisiest first.
        factors: what each of its steps multiplies x_t and eps with, where that is all they do.
    """

    timesteps: Int[Tensor, " n"]
    latents: Float[Tensor, "n c h w"]
    exact: Float[Tensor, "n c h w"]
    quantized: Float[Tensor, "n c h w"]
    visited: Sequence[int]
    factors: Sequence[tuple[float, float]] | None = None

    def each(self) -> Iterator[tuple[int, Float[Tensor, "m c h w"], Float[Tensor, "m c h w"]]]:
        """The predictions of each timestep that has any, in fp64: those of the float network first."""
        for timestep in sorted(set(self.timesteps.tolist())):
            here = self.timesteps == timestep
            yield timestep, self.exact[here].double(), self.quantized[here].double()

    def by_timestep(
        self, line: Callable[[Float[Tensor, "m c h w"], Float[Tensor, "m c h w"]], Mapping[str, Tensor]]
    ) -> Correction:
        """The correction of a rule that is applied to each timestep by itself.

        A timestep of the sampler without rows has what lies between its neighbours, by linear interpolation.

        Args:
            line: from the float network's predictions and the quantized one's at a timestep to `scale` and
                `shift`, numbers per channel, and `variance`, a number.
        """
        found = {timestep: line(*predictions) for timestep, *predictions in self.each()}
        known = sorted(found)

        def table(name: str) -> Tensor:
            values = torch.stack([found[timestep][name] for timestep in known])
            columns = [
                np.interp(self.visited, known, column.numpy()) for column in values.reshape(len(known), -1).T
            ]
            return torch.from_numpy(np.stack(columns, axis=1)).reshape(len(self.visited), *values.shape[1:])

        return Correction.of(self.visited, table("scale"), table("shift"), variance=table("variance"))


@torch.no_grad()
def predicted_pairs(
    float_unet: nn.Module, quantized_unet: nn.Module, rows: Rows, model: Model, batch_size: int
) -> Pairs:
    """The pairs of predictions at calibration rows.

    Args:
        float_unet, quantized_unet: the networks, on the device of the rows.
        rows: as `select-calibration` leaves them; with guidance, all evaluations of a state after each other.
        model: sampler, noise schedule, what is predicted, and guidance.
        batch_size: rows per pass.

    Raises:
        EdadmError: a prediction is not finite.
    """
    parts = 1
    conditioning = model.conditioning
    if conditioning is not None and model.guidance != 1:
        parts = 3 if conditioning.drops_image else 2
    image_guidance = (conditioning.image_guidance if conditioning else None) or 1.0
    prediction = Prediction.of(model)

    def eps(network: nn.Module, batch: Rows) -> Tensor:
        predicted = network_call(network, batch).float()
        evaluations = predicted.unflatten(0, (-1, parts)).unbind(1)
        mixed = guided_mixture(evaluations, model.guidance, image_guidance) if parts > 1 else predicted
        found = prediction.eps(mixed, batch.latents[::parts], batch.timesteps[::parts])
        if not bool(found.isfinite().all()):
            raise EdadmError(
                "a prediction at a calibration row is not finite; look for such numbers in the weights"
            )
        return found.cpu()

    batches = rows.split(max(1, batch_size // parts) * parts)
    exact, quantized = (
        torch.cat([eps(net, batch) for batch in batches]) for net in (float_unet, quantized_unet)
    )
    states = rows[::parts]
    visited = [int(timestep) for timestep in sampler_timesteps(model.sampler, model.schedule)]
    factors = step_factors(model.sampler, model.schedule)
    return Pairs(states.timesteps.cpu(), states.latents.cpu(), exact, quantized, visited, factors)
