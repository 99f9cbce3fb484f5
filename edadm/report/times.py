"""How long the stages took, from what Snakemake measured, and on which GPUs, from locks beside artifacts."""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edadm.artifacts import describe, gpu_beside
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
    "extract-features",
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


def seconds_of(results: Path, stage: str, of: str) -> float | None:
    """Seconds that all jobs of a stage took together, its shards and shares; None if none was measured.

    Args:
        results: the folder.
        stage: the subcommand.
        of: the model and the presets that it was run for, as a path.
    """
    names = (stage, "reconstruct-part") if stage == "reconstruct" else (stage,)
    paths = [results / "times" / name / of for name in names]
    files = [
        file for path in paths for file in (path.with_name(f"{path.name}.tsv"), *path.glob("[0-9]*.tsv"))
    ]
    rows = [row for file in files if file.is_file() for row in table_rows(file, "\t")]
    seconds = _numbers(row.get("s") for row in rows)
    return math.fsum(seconds) if seconds else None


def read_devices(results: Path) -> dict[str, Counter[str]]:
    """The kinds of artifacts that each GPU made, and how many; empty where none was at work."""
    made: dict[str, Counter[str]] = {}
    for artifact in _artifacts(results):
        if gpu := gpu_beside(artifact):
            kind = (describe(artifact) or {}).get("kind")
            made.setdefault(gpu, Counter()).update([kind] if kind else [])
    return dict(sorted(made.items()))


def _artifacts(results: Path) -> list[Path]:
    """What has a lock beside it; inside of stores, which are folders of many files, nothing has."""
    found = []
    for folder, folders, files in os.walk(results):
        folders[:] = [name for name in folders if not name.startswith(".") and not name.endswith(".zarr")]
        locks = [name for name in files if name.startswith(".") and name.endswith(".lock")]
        found += [Path(folder) / name.removeprefix(".").removesuffix(".lock") for name in locks]
    return found


def _numbers(texts: Any) -> list[float]:
    """Those of the texts that are numbers; Snakemake writes NA or - for what it could not measure."""
    numbers = []
    for text in texts:
        try:
            numbers.append(float(text))
        except (TypeError, ValueError):
            continue
    return [number for number in numbers if math.isfinite(number)]
