"""Rows of the smaller tables: unit errors, stages, file sizes and settings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edadm.report.results.records import RunResult, UnitErrors
from edadm.report.tables.words import ABSENT, duration, megabytes, signed
from edadm.report.times import StageTime

UNIT_COLUMNS = (
    "before",
    "soft",
    "after",
    "soft to hard",
    "held-out before",
    "held-out after",
    "flipped",
    "scale drift",
)


def unit_rows(units: Sequence[UnitErrors]) -> list[tuple[str, list[str]]]:
    """Per unit its name and the cells of `UNIT_COLUMNS`; formatted."""
    return [
        (
            unit.name,
            [
                *(f"{error:.3g}" for error in (unit.before, unit.soft, unit.after)),
                f"{signed(100 * (unit.hardening - 1), 1)}%" if math.isfinite(unit.hardening) else ABSENT,
                *(
                    ABSENT if math.isnan(error) else f"{error:.3g}"
                    for error in (unit.held_out_before, unit.held_out_after)
                ),
                f"{unit.flipped:.2%}",
                f"{math.expm1(unit.scale_drift):.2%}",
            ],
        )
        for unit in units
    ]


def stage_rows(times: Sequence[StageTime]) -> list[dict[str, Any]]:
    """Per stage its jobs, time, share of the longest stage in percent, and peak memory; formatted."""
    longest = max((stage.seconds or 0.0 for stage in times), default=0.0)
    return [
        {
            "stage": stage.stage,
            "jobs": stage.jobs,
            "time": duration(stage.seconds),
            "share": f"{100 * (stage.seconds or 0.0) / longest if longest else 0.0:.2f}",
            "memory": ABSENT if stage.peak_mb is None else f"{stage.peak_mb:,.0f} MB",
        }
        for stage in times
    ]


def device_rows(made: Mapping[str, Counter[str]]) -> list[dict[str, str]]:
    """Per GPU what it made, e.g. "12 samples, 2 trajectories"; formatted."""
    return [
        {"device": gpu, "made": ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))}
        for gpu, kinds in made.items()
    ]


def size_rows(run: RunResult) -> list[dict[str, str]]:
    """Per measured variant its label, file size, and share of the largest file in percent; formatted."""
    files = [*([run.baseline] if run.baseline else []), *run.checkpoints]
    sizes = {result.label: result.speed.bytes for result in files if result.speed}
    return [
        {"label": label, "size": megabytes(size), "share": f"{100 * size / max(sizes.values()):.2f}"}
        for label, size in sizes.items()
    ]


def settings_rows(preset: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """A preset's settings, nested ones as `sampler.steps`."""
    for key, value in preset.items():
        name = prefix + key.rstrip("_")  # `lambda_` is a Python name for `lambda`
        if isinstance(value, Mapping) and value:
            yield from settings_rows(value, f"{name}.")
        elif isinstance(value, bool):
            yield name, "yes" if value else "no"
        elif isinstance(value, list | tuple):
            yield name, ", ".join(map(str, value)) or "none"
        else:
            yield name, "none" if value is None or value == {} else str(value)
