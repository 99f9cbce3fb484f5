"""What is to be reconstructed: the task that passes work on, and the settings of each unit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from torch import Tensor, nn

from edadm.config.schema import Memory as MemorySettings
from edadm.config.schema import Reconstruction
from edadm.errors import EdadmError
from edadm.learning.capture.data import UnitData
from edadm.learning.engine import UnitReport
from edadm.learning.unit_store import UnitStore
from edadm.networks.inputs import Rows
from edadm.networks.units.unit import Unit


@dataclass(frozen=True)
class Task:
    """A reconstruction task: the networks, their units, the calibration rows, and how to learn from them.

    Attributes:
        float_unet: the full-precision network.
        quantized_unet: its quantized copy, grids set, weights in floating point; learned in place.
        units: all units in order of execution; those left in floating point are passed by.
        inputs: of the network, calibration rows first.
        held_out: so many rows at the end only measure what was learned.
        settings: how to learn.
        unit_store: keeps finished units.
        on_unit: told 1 whenever a unit is finished.
        around_learning: a context for the learning steps of each unit, e.g. a clock.
        graphs: replay CUDA graphs where there is a GPU.
        reports: filled with finished units and their reports.
        memory: limits of what is kept between computations; without them everything stays on the device.
        scratch: folder for what exceeds them.
        chosen: positions of the units that are learned, by a job that shares independent units with others;
            all by default.
        before_unit: called with a unit that is about to learn; gives its rows' weights, None for equal ones.
        after_unit: called with a unit whose rounding is decided, before the unit is kept; may change it, and
            says its errors again.
    """

    float_unet: nn.Module
    quantized_unet: nn.Module
    units: Sequence[Unit]
    inputs: Rows
    held_out: int
    settings: Reconstruction
    unit_store: UnitStore
    on_unit: Callable[[int], None] = lambda units: None
    around_learning: Callable[[], AbstractContextManager[None]] = nullcontext
    graphs: bool = True
    reports: list[tuple[Unit, UnitReport]] = field(default_factory=list)
    memory: MemorySettings | None = None
    scratch: Path | None = None
    chosen: Sequence[int] | None = None
    before_unit: BeforeUnit | None = None
    after_unit: Sequence[AfterUnit] = ()

    @property
    def on_the_way(self) -> list[tuple[int, Unit]]:
        """The units that a pass through the network meets, each behind its position among all units."""
        return [(index, unit) for index, unit in enumerate(self.units) if not unit.is_apart]


BeforeUnit = Callable[[Task, Unit, UnitData], Tensor | None]
AfterUnit = Callable[[Task, Unit, UnitData, UnitReport], UnitReport]


def settings_of(unit: Unit, settings: Reconstruction) -> Reconstruction:
    """The settings with which one unit learns.

    The last matching pattern of `unit_iterations` decides how many iterations it gets.
    """
    matching = [
        count for pattern, count in settings.unit_iterations.items() if fnmatchcase(unit.name, pattern)
    ]
    changed: dict[str, object] = {"iterations": matching[-1]} if matching else {}
    if unit.kind in settings.without_layer_errors:
        changed["layer_weight"] = 0.0
    return settings.model_copy(update=changed) if changed else settings


def refuse_idle_patterns(units: Sequence[Unit], settings: Reconstruction) -> None:
    """Refuses a pattern that matches no unit: a mistake that would show in no result.

    Raises:
        EdadmError: a pattern of `unit_iterations` matches no unit.
    """
    for pattern in settings.unit_iterations:
        if not any(fnmatchcase(unit.name, pattern) for unit in units):
            raise EdadmError(
                f"unit_iterations: the pattern '{pattern}' matches no unit, such as '{units[0].name}'; "
                "remove it or mend its name"
            )
