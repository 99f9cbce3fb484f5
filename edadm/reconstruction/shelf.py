"""Finished units on disk, and the table of their errors."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from edadm.artifacts import writing
from edadm.models.units import Unit
from edadm.reconstruction.chain import FinishedUnit
from edadm.reconstruction.engine import UnitReport

KINDS = ("codes:", "scales:", "biases:")


class FolderShelf:
    """One safetensors file per finished unit, written whole or not at all.

    Args:
        folder: where units are put, and looked for first.
        others: folders of other jobs, where units are looked for, too.
    """

    def __init__(self, folder: Path, *others: Path):
        self.folder, self.others = folder, others

    @staticmethod
    def _name(index: int, unit: Unit) -> str:
        return f"{index:03d}_{unit.name}.safetensors"

    def get(self, index: int, unit: Unit) -> FinishedUnit | None:
        """A unit that was finished before, if it was; a torn file (a full disk, a lost machine) counts as none, and is written anew."""
        for folder in (self.folder, *self.others):
            with suppress(SafetensorError, OSError, KeyError, TypeError, ValueError):
                return _read(folder / self._name(index, unit))
        return None

    def put(self, index: int, unit: Unit, finished: FinishedUnit) -> None:
        """Keeps a finished unit."""
        parts = zip(KINDS, (finished.codes, finished.scales, finished.biases), strict=True)
        tensors = {f"{kind}{name}": tensor for kind, part in parts for name, tensor in part.items()}
        with writing(self.folder / self._name(index, unit)) as partial:
            report = json.dumps(dataclasses.asdict(finished.report))
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, partial, {"report": report})


def _read(path: Path) -> FinishedUnit:
    """The unit in a file; raises whatever reading and parsing raise."""
    with safe_open(path, "pt") as file:
        report = UnitReport(**json.loads(file.metadata()["report"]))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - a safetensors file is no dict
    codes, scales, biases = ({n.removeprefix(kind): t for n, t in tensors.items() if n.startswith(kind)} for kind in KINDS)
    return FinishedUnit(codes, scales, biases, report)


def write_losses(path: Path, reports: Sequence[tuple[Unit, UnitReport]]) -> None:
    """A CSV row per unit: its name, kind, number of layers, and the fields of its report."""
    fields = [field.name for field in dataclasses.fields(UnitReport)]
    with writing(path) as partial, open(partial, "w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["unit", "kind", "layers", *fields])
        for unit, report in reports:
            table.writerow(
                [unit.name, unit.kind, len(unit.layers), *("" if (v := getattr(report, f)) is None else repr(v) for f in fields)]
            )
