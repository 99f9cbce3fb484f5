"""The task of a reconstruction: its networks, its rows to learn from, and what these were made from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edadm.config.schema import Bits, Model, Reconstruction
from edadm.config.stated import settings_of
from edadm.stages.inputs.provenance import digests, refuse_other_calibration

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Given:
    """The files of a reconstruction, and the memory that it may take.

    Attributes:
        unet, calibration_set, ranges: from `convert-checkpoint`, `select-calibration`, `set-ranges`.
        device_memory, host_memory: GiB that may be kept there; what is free where none is given.
    """

    unet: Path
    calibration_set: Path
    ranges: Path
    device_memory: float | None = None
    host_memory: float | None = None

    def within_limits(self, task: Any, progress: Path) -> Any:
        """The task with limits of memory; the empty folder that a killed process may leave goes here."""
        import shutil

        from edadm.config.schema import Memory

        scratch = progress / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        memory = Memory(device=self.device_memory, host=self.host_memory)
        return dataclasses.replace(task, memory=memory, scratch=scratch)


def of_task(model: Model, bits: Bits, given: Given) -> dict[str, Any]:
    """What a reconstruction is made from, whose inputs must be made for each other.

    Raises:
        DamagedError: one is damaged.
        StaleError: one was made from other settings or files.
    """
    from edadm.artifacts import refuse_other

    made_from: dict[str, Any] = {"model": settings_of(model, "architecture"), "bits": settings_of(bits)}
    inputs = digests(unet=given.unet, calibration_set=given.calibration_set, ranges=given.ranges)
    refuse_other_calibration(given.calibration_set, model, inputs["unet"])
    of_ranges = {role: inputs[role] for role in ("unet", "calibration_set")}
    refuse_other(given.ranges, made_from | {"inputs": of_ranges}, "set-ranges")
    return made_from | {"inputs": inputs}


def open_task(
    model: Model,
    bits: Bits,
    settings: Reconstruction,
    given: Given,
    device: torch.device,
    unit_store: Any,
) -> Any:
    """A float and a quantized network side by side, and the rows to learn from."""
    from edadm.artifacts import read_tensors
    from edadm.calibration.conditions import HELD_OUT
    from edadm.deploy.grids import quantized_copy, set_grids
    from edadm.learning.task import Task, refuse_idle_patterns
    from edadm.networks.inputs import Rows
    from edadm.networks.load import load_network
    from edadm.networks.units.temporal import units_of

    network = load_network(model.architecture, given.unet, device)
    quantized = quantized_copy(network, bits)
    set_grids(quantized, read_tensors(given.ranges, "set-ranges", device=device, kind="ranges"))
    units = units_of(network, settings)
    refuse_idle_patterns(units, settings)
    needed = ("latents", "timesteps")
    rows = read_tensors(given.calibration_set, "select-calibration", needed, device, "calibration")
    learned, held_out = Rows.of(rows), Rows.of(rows, HELD_OUT)
    held_out = held_out if held_out.tensors else learned[:0]
    inputs = Rows.concatenated([learned, held_out])
    return Task(network, quantized, units, inputs, len(held_out), settings, unit_store)
