"""A plan as a table for people and as plain values for machines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edadm.console import duration, gib, size
from edadm.planning.estimate import seconds
from edadm.planning.rates import Rates
from edadm.report.times import seconds_of
from edadm.stages.cost.networks import Networks
from edadm.stages.cost.work import Cost

HEADER = (
    "stage",
    "of",
    "U-Net evaluations",
    "learning steps",
    "images",
    "disk",
    "files",
    "device",
    "kept",
    "time",
)
MEASURED = "measured"


def as_values(
    name: str, networks: Networks, stages: Sequence[Cost], rates: Rates | None, results: Path | None = None
) -> dict[str, Any]:
    """The plan of a model as JSON values: bytes and seconds.

    `seconds` is null where it is not estimated, `measured_seconds` where no job of the stage ran.

    Args:
        name: of the model.
        networks: its networks.
        stages: what is planned.
        rates: of a machine; None for counts alone.
        results: a folder that may hold times of earlier runs.
    """
    return {
        "model": name,
        "parameters": networks.parameters,
        "flops_per_row": networks.flops[""],
        "stages": [_stage(stage, rates, results) for stage in stages],
        "probe": None if rates is None else _rates(rates),
    }


def _stage(stage: Cost, rates: Rates | None, results: Path | None) -> dict[str, Any]:
    return {
        "stage": stage.name,
        "of": stage.of,
        "unet_evaluations": stage.evaluations,
        "unet_calls": sum(passes.calls for passes in stage.passes),
        "units": len(stage.learning),
        "learning_steps": stage.steps,
        "searched_weights": stage.searched_weights,
        "images": images(stage),
        "disk_bytes": stage.disk,
        "files": stage.files,
        "shares": stage.shares,
        "divides_itself": stage.divides_itself,
        "device_bytes": asdict(stage.memory) | {"total": stage.memory.total},
        "seconds": None if rates is None else seconds(stage, rates),
        "measured_seconds": None if results is None else seconds_of(results, stage.name, stage.of),
    }


def images(stage: Cost) -> int:
    """Images that are made or scored."""
    return stage.scored or stage.images


def _rates(rates: Rates) -> dict[str, Any]:
    names = ("network", "precision", "batch_rows", "seconds_per_row")
    return {
        "device": rates.device,
        "evaluations": [dict(zip(names, (*key, value), strict=True)) for key, value in rates.rows.items()],
        "learning": [
            {
                "method": key[0],
                "precision": key[1],
                "rows": key[2],
                "unit": rate.unit.name,
                "kind": rate.unit.kind,
            }
            | {"flops_per_row": rate.flops, "seconds_per_step": rate.seconds, "seconds_beside": rate.overhead}
            for key, units in rates.units.items()
            for rate in units
        ],
        "seconds_per_searched_weight": rates.weight,
        "seconds_per_decoded_image": rates.decoded,
        "seconds_per_scored_image": rates.scored,
        "written_bytes_per_second": rates.written,
    }


def as_table(plan: dict[str, Any]) -> str:
    """The plan of a model in lines; values as from `as_values`."""
    lines = [
        f"{plan['model']}: U-Net of {plan['parameters']:,} parameters, {plan['flops_per_row'] / 1e9:,.1f} "
        "GFLOP per evaluation"
    ]
    rows = [HEADER, *(_cells(stage, plan["model"]) for stage in plan["stages"]), _total(plan["stages"])]
    measured = [stage["measured_seconds"] for stage in plan["stages"]]
    if known := [seconds for seconds in measured if seconds is not None]:
        took = [
            MEASURED,
            *("" if each is None else duration(each) for each in measured),
            duration(sum(known)),
        ]
        rows = [(*row, cell) for row, cell in zip(rows, took, strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    if any(stage["device_bytes"]["kept"] for stage in plan["stages"]):
        lines.append(
            "what reconstruction keeps goes to the device as far as it fits (`memory.device`), then to host "
            "memory, then to files"
        )
    if known:
        lines.append(f"{MEASURED}: by jobs of earlier runs, their start included, wherever they ran")
    return "\n".join([*lines, *_probe_lines(plan["probe"])])


def _cells(stage: dict[str, Any], model: str) -> tuple[str, ...]:
    counts = [
        f"{stage[key]:,}" if stage[key] else "" for key in ("unet_evaluations", "learning_steps", "images")
    ]
    memory = stage["device_bytes"]
    return (
        stage["stage"],
        stage["of"].removeprefix(model).removeprefix("/"),
        *counts,
        size(stage["disk_bytes"]) if stage["disk_bytes"] else "",
        f"{stage['files']:,}",
        gib(memory["weights"] + memory["work"]),
        gib(memory["kept"]),
        "" if stage["seconds"] is None else duration(stage["seconds"]),
    )


def _total(stages: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    known = [stage["seconds"] for stage in stages if stage["seconds"] is not None]
    counts = [f"{sum(stage[key] for stage in stages):,}" for key in ("unet_evaluations", "learning_steps")]
    memory = [stage["device_bytes"] for stage in stages]
    most = (
        gib(max(found["weights"] + found["work"] for found in memory)),
        gib(max(found["kept"] for found in memory)),
    )
    disk = size(sum(stage["disk_bytes"] for stage in stages))
    files = f"{sum(stage['files'] for stage in stages):,}"
    return ("all", "", *counts, "", disk, files, *most, duration(sum(known)) if known else "")


def _probe_lines(probe: dict[str, Any] | None) -> list[str]:
    if probe is None:
        return ["counts alone; without --no-probe times are estimated, too"]
    lines = [
        f"times are estimates from a probe of this machine ({probe['device']}) with random weights, imports "
        "and loading not in them:"
    ]
    for rate in probe["evaluations"]:
        batch = f"batches of {rate['batch_rows']} rows"
        lines.append(
            f"  {rate['network']} network, {rate['precision']}, {batch}: "
            f"{1000 * rate['seconds_per_row']:.4g} ms per evaluation"
        )
    for rate in probe["learning"]:
        step = f"{1000 * rate['seconds_per_step']:.4g} ms per step of {rate['rows']} rows"
        lines.append(f"  {rate['kind']} {rate['unit']}: {step}, {rate['seconds_beside']:.3g} s beside them")
    single = {
        "search of weight ranges": (probe["seconds_per_searched_weight"], 1e9, "ns per weight"),
        "decoder": (probe["seconds_per_decoded_image"], 1e3, "ms per image"),
        "features of images that are scored": (probe["seconds_per_scored_image"], 1e3, "ms per image"),
        "disk": (probe["written_bytes_per_second"], 1e-6, "MB/s"),
    }
    return [
        *lines,
        *(
            f"  {name}: {value * factor:.4g} {unit}"
            for name, (value, factor, unit) in single.items()
            if value
        ),
    ]
