"""What a machine needs for units of work, as a probe measured it."""

from __future__ import annotations

from dataclasses import dataclass, field

from edadm.networks.units.unit import Unit
from edadm.stages.cost.work import LearningKey, PassKey


@dataclass(frozen=True)
class UnitRate:
    """Seconds per learning step of a unit, measured.

    `flops` are of one row, `overhead` the seconds beside its steps.
    """

    unit: Unit
    flops: int
    seconds: float
    overhead: float


@dataclass
class Rates:
    """What the machine needs.

    Attributes:
        device: its name.
        rows: seconds per row of a network evaluation, by kind, precision and batch.
        units: learning steps of the cheapest and the costliest unit of each kind, by method, precision and
            rows per step.
        weight: seconds per weight of the range search.
        decoded: seconds per image from the autoencoder; 0 without one.
        scored: seconds per image whose features are computed; None where the network for that is not at hand.
        written: bytes per second that reach the disk; None where it was not measured.
    """

    device: str
    rows: dict[PassKey, float] = field(default_factory=dict)
    units: dict[LearningKey, list[UnitRate]] = field(default_factory=dict)
    weight: float = 0.0
    decoded: float = 0.0
    scored: float | None = None
    written: float | None = None
