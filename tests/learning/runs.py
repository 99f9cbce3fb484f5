"""Learning a whole tiny network, and what came of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from edadm.config.schema import Reconstruction
from edadm.learning.engine import UnitReport
from edadm.learning.task import Task
from edadm.learning.unit_store import FinishedUnit, UnitStore
from edadm.networks.units.temporal import units_of
from edadm.networks.units.unit import Unit
from edadm.nn.insert import activation_quantizers, quantized_layers
from edadm.passes.methods import run_method

from ..conftest import as_rows

Calibration = tuple[Tensor, Tensor]
Reports = list[tuple[Unit, UnitReport]]


class UnitsInMemory:
    """Keeps units in memory; may be given the first ones of another run."""

    def __init__(self, kept: dict[int, FinishedUnit] | None = None):
        self.kept = dict(kept or {})
        self.put_indices: list[int] = []

    def get(self, index: int, unit: Unit) -> FinishedUnit | None:
        return self.kept.get(index)

    def put(self, index: int, unit: Unit, finished: FinishedUnit) -> None:
        self.put_indices.append(index)
        self.kept[index] = finished


def a_task(
    float_unet: UNet2DModel,
    unet: nn.Module,
    calibration: Calibration,
    settings: Reconstruction,
    unit_store: UnitStore,
    on_unit: Callable[[int], None] = lambda units: None,
    held_out: int = 0,
) -> Task:
    """What the settings' method is to learn."""
    units = units_of(float_unet, settings)
    return Task(float_unet, unet, units, as_rows(calibration), held_out, settings, unit_store, on_unit)


def learned(
    float_unet: UNet2DModel,
    unet: nn.Module,
    calibration: Calibration,
    settings: Reconstruction,
    unit_store: UnitStore,
    on_unit: Callable[[int], None] = lambda units: None,
    held_out: int = 0,
) -> Reports:
    """Learns with the settings' method in place; returns what each unit reported."""
    task = a_task(float_unet, unet, calibration, settings, unit_store, on_unit, held_out)
    run_method(task)
    return task.reports


def state(unet: nn.Module) -> dict[str, Tensor]:
    """All that a run decides."""
    codes = {
        f"{name}.codes": layer.codes
        for name, layer in quantized_layers(unet).items()
        if layer.codes is not None
    }
    weights = {f"{name}.weight": layer.weight.detach() for name, layer in quantized_layers(unet).items()}
    biases = {
        f"{name}.bias": layer.bias.detach()
        for name, layer in quantized_layers(unet).items()
        if layer.bias is not None
    }
    return (
        codes
        | weights
        | biases
        | {f"{name}.scale": quantizer.scale for name, quantizer in activation_quantizers(unet).items()}
    )


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether two states are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
