"""Where the bytes of a network lie, and which of its units quantization hurts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edadm.artifacts import reading
from edadm.artifacts.digest import read_header
from edadm.report.results.files import AGAIN
from edadm.report.results.records import UnitErrors, VariantResult
from edadm.report.tables.words import ABSENT, kilobytes

GRIDS, HEADER = "scales and zero points of all layers", "names, shapes, description"
_LAST = {GRIDS: 1, HEADER: 2}
_GRIDS = "grids."  # how tensors begin that hold those of all layers


@dataclass(frozen=True)
class File:
    """What a file of weights holds: bytes by tensor, bytes of its head, and formats of quantized layers."""

    tensors: Mapping[str, int]
    head: int
    formats: Mapping[str, str]


def read_file(path: Path) -> File:
    """The sizes of what lies in a file of weights, quantized or not; no weights are read.

    Raises:
        EdadmError: it is damaged.
    """
    header = read_header(path)
    with reading(path, AGAIN):
        spans = {name: entry["data_offsets"] for name, entry in header.entries.items()}
        facts = json.loads(header.metadata.get("edadm", "{}"))
        schemes = [scheme["format"] for scheme in facts.get("schemes", ())]
        weights = [site for site in facts.get("sites", {}) if site.endswith(".weight")]
        formats = {site.removesuffix(".weight"): schemes[facts["sites"][site][0]] for site in weights}
    return File({name: end - begin for name, (begin, end) in spans.items()}, header.start, formats)


def bytes_by_unit(file: File, units: Sequence[str]) -> dict[str, int]:
    """Bytes of every unit, of what belongs to none by module, and of the file's head: of the whole file."""
    found: dict[str, int] = {}
    for name, size in file.tensors.items():
        unit = _unit_of(name, units)
        found[unit] = found.get(unit, 0) + size
    return found | {HEADER: file.head}


def _unit_of(tensor: str, units: Sequence[str]) -> str:
    """The unit that a tensor belongs to; its own module where it belongs to none."""
    if tensor.startswith(_GRIDS):
        return GRIDS
    module = tensor.rpartition(".")[0]
    return next((unit for unit in units if _holds(unit, module)), module)


def _holds(unit: str, module: str) -> bool:
    return module == unit or module.startswith(f"{unit}.")


def units_of(results: Sequence[VariantResult]) -> list[str]:
    """The units that were learned in any of the checkpoints, in the order in which the network runs them."""
    return list(dict.fromkeys(unit.name for result in results for unit in result.units))


def layer_rows(
    full: File | None, files: Mapping[str, File], results: Sequence[VariantResult], units: Sequence[str]
) -> list[dict[str, Any]]:
    """A row per unit, then one per module of none: bytes in full precision and every checkpoint; formatted.

    Of a unit that was learned also its error after that, and before; without units, a row per layer.

    Args:
        full: weights of full precision, if they are known.
        files: the checkpoints by name of variant.
        results: of the same variants.
        units: the rows to begin with.
    """
    floats = bytes_by_unit(full, units) if full else {}
    sizes = [bytes_by_unit(files[result.variant.name], units) for result in results]
    names = dict.fromkeys([*units, *floats, *(name for size in sizes for name in size)])
    ordered = sorted(names, key=lambda name: _LAST.get(name, 0))
    largest = max((size for of in (floats, *sizes) for size in of.values()), default=1)
    return [
        {
            "unit": name,
            "full": kilobytes(floats[name]) if name in floats else ABSENT,
            "share": _share(floats.get(name, 0), largest),
            "cells": [
                _cell(name, size, files[result.variant.name], result, largest)
                for size, result in zip(sizes, results, strict=True)
            ],
        }
        for name in ordered
    ]


def _cell(
    name: str, sizes: Mapping[str, int], file: File, result: VariantResult, largest: int
) -> dict[str, str]:
    formats = sorted({of for layer, of in file.formats.items() if _holds(name, layer)})
    size = sizes.get(name)
    cell = {"size": ABSENT if size is None else kilobytes(size), "formats": " and ".join(formats)}
    return cell | {"share": _share(size or 0, largest)} | _error(name, result.units)


def _error(name: str, units: Sequence[UnitErrors]) -> dict[str, str]:
    unit = next((unit for unit in units if unit.name == name), None)
    if unit is None:
        return {"error": ABSENT, "before": "", "part": "0"}
    part = _share(unit.after, max(unit.after for unit in units))
    return {"error": f"{unit.after:.3g}", "before": f"{unit.before:.3g} before", "part": part}


def _share(value: float | int, largest: float | int) -> str:
    """Percent of the largest value, for the width of a bar."""
    return f"{100 * value / largest if largest > 0 and value < float('inf') else 0:.2f}"
