"""Unit stores keep finished units, on disk with a table of their errors."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from safetensors import safe_open
from torch import Tensor, nn

from edadm.artifacts import (
    DamagedError,
    Facts,
    facts,
    intact,
    placing,
    reading,
    refuse_other,
    save_tensors,
    writing,
    writing_json,
)
from edadm.artifacts.metadata import KEY, UNITS
from edadm.console import say
from edadm.learning.engine import UnitReport
from edadm.networks.units.unit import Unit
from edadm.nn.insert import activation_quantizers, quantized_layers

KINDS = ("codes:", "scales:", "biases:")


@dataclass(frozen=True)
class FinishedUnit:
    """A finished unit is all that learning decided about one unit.

    Attributes:
        codes: integer codes of each layer's weights, by the layer's name within the unit.
        scales: of each activation quantizer, likewise.
        biases: of each layer that has one, likewise.
        report: errors of the unit.
    """

    codes: dict[str, Tensor]
    scales: dict[str, Tensor]
    biases: dict[str, Tensor]
    report: UnitReport

    @classmethod
    def of(cls, module: nn.Module, report: UnitReport) -> FinishedUnit:
        """The finished unit that a hardened module holds."""
        codes = {
            name: layer.codes for name, layer in quantized_layers(module).items() if layer.codes is not None
        }
        scales = {name: quantizer.scale for name, quantizer in activation_quantizers(module).items()}
        biases = {
            name: layer.bias.detach()
            for name, layer in quantized_layers(module).items()
            if layer.bias is not None
        }
        return cls(codes, scales, biases, report)

    def put_into(self, module: nn.Module) -> None:
        """Brings a module with searched grids and float weights to the finished unit's state."""
        for name, layer in quantized_layers(module).items():
            layer.set_codes(self.codes[name].to(layer.weight.device))
            if name in self.biases:  # replaced, not changed: the float network shares the old one
                layer.bias = nn.Parameter(self.biases[name].to(layer.weight.device), requires_grad=False)
        for name, quantizer in activation_quantizers(module).items():
            quantizer.set_grid(self.scales[name], quantizer.zero_point)


@runtime_checkable
class UnitStore(Protocol):
    """A unit store keeps finished units."""

    def get(self, index: int, unit: Unit) -> FinishedUnit | None:
        """A unit that was finished before, if it was."""

    def put(self, index: int, unit: Unit, finished: FinishedUnit) -> None:
        """Keeps a finished unit."""


class FolderUnitStore:
    """A unit store in a folder: one safetensors file per finished unit, written whole or not at all.

    Args:
        folder: where units are put, and looked for first.
        others: folders of other jobs, where units are looked for, too.
        known: what each unit is made from (`edadm.artifacts.facts`).
    """

    def __init__(self, folder: Path, *others: Path, known: Facts | None = None):
        with placing(folder):
            folder.mkdir(parents=True, exist_ok=True)  # a share may have no unit to learn
        self.folder = folder
        self.others = others
        self.known = known or facts("unit", {})

    @staticmethod
    def _name(index: int, unit: Unit) -> str:
        return f"{index:03d}_{unit.name}.safetensors"

    def get(self, index: int, unit: Unit) -> FinishedUnit | None:
        """A unit that was finished before, if it was.

        The unit of a damaged file (a lost machine) counts as none: it is learned and written anew.

        Raises:
            StaleError: another job made it from other settings or files.
        """
        for folder in (self.folder, *self.others):
            path = folder / self._name(index, unit)
            if not path.exists():
                continue
            try:
                intact(path, "unit")
                refuse_other(path, self.known["made_from"], "reconstruct-part")
                with reading(path):
                    return _read(path)
            except DamagedError:
                say(f"{path} is damaged, or of another version; its unit is learned again")
        return None

    def put(self, index: int, unit: Unit, finished: FinishedUnit) -> None:
        """Keeps a finished unit."""
        parts = zip(KINDS, (finished.codes, finished.scales, finished.biases), strict=True)
        tensors = {f"{kind}{name}": tensor for kind, part in parts for name, tensor in part.items()}
        known = self.known | {"report": dataclasses.asdict(finished.report)}
        with writing(self.folder / self._name(index, unit)) as partial:
            save_tensors(partial, tensors, known)

    def seal(self, known: Facts) -> None:
        """Says in the folder what it is, and which units it holds, when all are there."""
        units = {path.name: intact(path) for path in sorted(self.folder.glob("*.safetensors"))}
        writing_json(self.folder / UNITS, {"units": units}, known)


def _read(path: Path) -> FinishedUnit:
    """The unit in a file; raises whatever reading and parsing raise."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        known = json.loads(metadata.get(KEY, "{}"))
        report = UnitReport(
            **(known.get("report") or json.loads(metadata["report"]))
        )  # edadm 0.1.0 had it alone
        names = file.keys()  # a safetensors file is no dict
        tensors = {name: file.get_tensor(name) for name in names}
    codes, scales, biases = (
        {n.removeprefix(kind): t for n, t in tensors.items() if n.startswith(kind)} for kind in KINDS
    )
    return FinishedUnit(codes, scales, biases, report)


def write_losses(path: Path, reports: Sequence[tuple[Unit, UnitReport]]) -> None:
    """A CSV row per unit: its name, kind, number of layers, and the fields of its report."""
    fields = [field.name for field in dataclasses.fields(UnitReport)]
    with writing(path) as partial, open(partial, "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["unit", "kind", "layers", *fields])
        for unit, report in reports:
            table.writerow(
                [
                    unit.name,
                    unit.kind,
                    len(unit.layers),
                    *("" if (v := getattr(report, f)) is None else repr(v) for f in fields),
                ]
            )
