"""How long the stages took, from what Snakemake measured."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edadm.report.results.files import table_rows

STAGES = (
    "convert-checkpoint",
    "collect-trajectories",
    "select-calibration",
    "set-ranges",
    "reconstruct-part",
    "reconstruct",
    "generate",
    "write-prompts",
    "reference-statistics",
    "evaluate",
    "benchmark",
)


@dataclass(frozen=True)
class StageTime:
    """All jobs of a stage: how many, their seconds together, and the largest memory of one in MB."""

    stage: str
    jobs: int
    seconds: float | None
    peak_mb: float | None


def read_times(results: Path) -> list[StageTime]:
    """Stages in the order of the pipeline, from Snakemake's benchmark files; empty if there are none.

    The report's own times, of an earlier run, are left out: a page must not depend on when it was made.
    """
    folders = [
        folder for folder in (results / "times").glob("*") if folder.is_dir() and folder.name != "report"
    ]
    order = {stage: index for index, stage in enumerate(STAGES)}
    folders.sort(key=lambda folder: (order.get(folder.name.replace("_", "-"), len(order)), folder.name))
    stages = []
    for folder in folders:
        rows = [row for file in sorted(folder.rglob("*.tsv")) for row in table_rows(file, "\t")]
        if rows:
            seconds, memory = (_numbers(row.get(column) for row in rows) for column in ("s", "max_rss"))
            stages.append(
                StageTime(
                    folder.name, len(rows), math.fsum(seconds) if seconds else None, max(memory, default=None)
                )
            )
    return stages


def _numbers(texts: Any) -> list[float]:
    """Those of the texts that are numbers; Snakemake writes NA or - for what it could not measure."""
    numbers = []
    for text in texts:
        try:
            numbers.append(float(text))
        except (TypeError, ValueError):
            continue
    return [number for number in numbers if math.isfinite(number)]
