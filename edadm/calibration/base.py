"""What a selector sees and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int


@runtime_checkable
class Store(Protocol):
    """Arrays by name: a zarr group as in `edadm.sampling.store`, or a dictionary."""

    def __getitem__(self, name: str, /) -> Any: ...


@dataclass(frozen=True)
class StepStatistics:
    """Distances between the mid-block features of any two sampler steps.

    Attributes:
        distance: mean squared difference, (steps, steps).
        dissimilarity: sum over feature rows and positions of one minus the cosine over channels, (steps,
            steps).
    """

    distance: Float[np.ndarray, "steps steps"]
    dissimilarity: Float[np.ndarray, "steps steps"]

    @property
    def steps(self) -> int:
        """Number of sampler steps."""
        return len(self.distance)


@dataclass(frozen=True)
class Allocation:
    """How many calibration samples each sampler step gets, and the curves that led to it."""

    counts: Int[np.ndarray, " steps"]
    curves: dict[str, Float[np.ndarray, " steps"]]
