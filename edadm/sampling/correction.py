"""A correction of what a quantized network predicts: a table over the timesteps of a sampler.

It belongs to the sampler, not to the network: it acts on eps after guidance, so that any back-end may have
computed it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor

from edadm.config.rules.timesteps import Timestep
from edadm.errors import EdadmError


@dataclass(frozen=True)
class Correction:
    """A correction is a line per timestep and channel, and how much noise the corrected prediction keeps.

    In place of eps the sampler is given `scale * eps + shift + of_state * x_t`.

    Attributes:
        timesteps: those of the sampler that it was fitted for, each once.
        scale: of each timestep and channel.
        shift: likewise.
        of_state: the share of x_t, of each timestep; 0 in a correction of the prediction alone.
        variance: of the quantization noise left in the corrected eps, of each timestep; a sampler that adds
            noise adds so much less (`sample_ddim`).
    """

    timesteps: Int[Tensor, " steps"]
    scale: Float[Tensor, "steps channels"]
    shift: Float[Tensor, "steps channels"]
    of_state: Float[Tensor, " steps"]
    variance: Float[Tensor, " steps"]

    @classmethod
    def of(
        cls,
        timesteps: Sequence[int],
        scale: Float[Tensor, "steps channels"],
        shift: Float[Tensor, "steps channels"],
        of_state: Float[Tensor, " steps"] | None = None,
        variance: Float[Tensor, " steps"] | None = None,
    ) -> Correction:
        """The correction in fp32; what is not given is 0."""
        zero = torch.zeros(len(timesteps))
        tables = (
            scale,
            shift,
            zero if of_state is None else of_state,
            zero if variance is None else variance,
        )
        return cls(torch.tensor(timesteps), *(table.float().cpu().clone() for table in tables))

    @classmethod
    def identity(cls, timesteps: Sequence[int], channels: int) -> Correction:
        """The correction that changes no bit of an image."""
        zero = torch.zeros(len(timesteps), channels)
        return cls.of(timesteps, zero + 1, zero)

    def tensors(self) -> dict[str, Tensor]:
        """Its tables by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_tensors(cls, tables: Mapping[str, Tensor]) -> Correction:
        """The correction of tables by name.

        Raises:
            ValueError: a table is missing, has another shape or type, or holds what is no finite number.
        """
        names = [field.name for field in fields(cls)]
        if absent := [name for name in names if name not in tables]:
            raise ValueError(f"its correction lacks '{absent[0]}'")
        steps, channels = tables["timesteps"].shape[0], tables["scale"].shape[-1]
        shapes = {"timesteps": (steps,), "of_state": (steps,), "variance": (steps,)}
        for name in names:
            table, shape = tables[name], shapes.get(name, (steps, channels))
            dtype = torch.int64 if name == "timesteps" else torch.float32
            if table.shape != shape or table.dtype != dtype or not bool(table.isfinite().all()):
                raise ValueError(
                    f"'{name}' of its correction is no table of finite numbers over its timesteps"
                )
        if bool((tables["timesteps"] < 0).any()) or bool((tables["variance"] < 0).any()):
            raise ValueError("a timestep or a variance of its correction is below 0")
        return cls(**{name: tables[name] for name in names})

    def refuse_other_timesteps(self, visited: Sequence[Timestep]) -> None:
        """Refuses a sampler for which the correction was not fitted.

        Raises:
            EdadmError: it visits other timesteps.
        """
        known = set(self.timesteps.tolist())
        if set(visited) != known:
            raise EdadmError(
                f"the checkpoint's correction was fitted for {len(known)} steps of its own sampler, and this "
                f"one visits {len(set(visited))}, or others; sample with the steps that it was made with, or "
                "reconstruct without `correction`"
            )

    def on(self, device: torch.device | str) -> AppliedCorrection:
        """The correction with its tables on a device."""
        return AppliedCorrection(self, device)


class AppliedCorrection:
    """A correction on the device of the latents, looked up by timestep.

    Args:
        correction: the tables.
        device: of the latents.
    """

    def __init__(self, correction: Correction, device: torch.device | str):
        known, size = correction.timesteps, int(correction.timesteps.max()) + 1

        def by_timestep(table: Tensor) -> Tensor:
            whole = torch.full((size, *table.shape[1:]), torch.nan)  # no number where nothing was fitted
            whole[known] = table
            return whole.to(device)

        self._scale, self._shift = by_timestep(correction.scale), by_timestep(correction.shift)
        self._of_state = by_timestep(correction.of_state) if bool(correction.of_state.any()) else None
        self._variance = dict(zip(known.tolist(), correction.variance.tolist(), strict=True))

    def __call__(
        self, eps: Float[Tensor, "n c h w"], x: Float[Tensor, "n c h w"], t: Int[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """The corrected eps."""
        scale, shift = (table[t][:, :, None, None] for table in (self._scale, self._shift))
        corrected = scale * eps + shift
        return corrected if self._of_state is None else corrected + self._of_state[t][:, None, None, None] * x

    def variance(self, timestep: int) -> float:
        """The variance of the quantization noise that is left in eps."""
        return self._variance[timestep]
