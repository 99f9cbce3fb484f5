"""The table of scores as CSV and as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from edadm.report.conditions import conditions
from edadm.report.results.intervals import difference, estimate
from edadm.report.results.records import (
    COLUMNS,
    PAIRED,
    RESAMPLED,
    SPREADS,
    TO_FULL_PRECISION,
    RunResult,
    VariantResult,
)
from edadm.report.tables.scores import FLOOR_LABEL, Cell, floor_row, metric_rows

_CONDITIONS = (  # in the CSV, whether they apply or not
    "images",
    "extractor",
    "extractor_sha256",
    "instead_of",
    "preparation",
    "inception_score_splits",
    "reference_set",
    "reference_images",
    "reference_sha256",
    "reference_preparation",
    "reference_features",
    "clip_model",
    "clip_sha256",
    "prompts_sha256",
    "captions_per_image",
    "vgg16_sha256",
    "lpips_sha256",
    "dists_sha256",
    "kid_subsets",
    "scored_at_once",
    "scored_on",
    "versions",
)


def metrics_csv(runs: Sequence[RunResult]) -> str:
    """Every number of the metric tables at full precision, with its conditions.

    What was not measured is empty.
    """
    text = io.StringIO()
    records = [_record(run, result) for run in runs for result in run.variants]
    table = csv.DictWriter(text, list(records[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(records)
    return text.getvalue()


def _record(run: RunResult, result: VariantResult) -> dict[str, Any]:
    speed = result.speed
    return {
        "model": run.model,
        "variant": result.variant.name,
        "label": result.label,
        "seeds": result.seeds,
        **_scores(result),
        "psnr_to_simulated_db": result.parity and result.parity["psnr"],
        "bytes": speed and speed.bytes,
        "float_bytes": speed and speed.float_bytes,
        "seconds_per_step": speed and speed.seconds,
        "fastest_seconds_per_step": speed and speed.fastest,
        "slowest_seconds_per_step": speed and speed.slowest,
        "fp32_seconds_per_step": speed and speed.float_seconds,
        "speed": speed and speed.relative,
        "integer_speed": result.integers and result.integers.relative,
        "batch_size": speed and speed.batch_size,
        "threads": speed and speed.threads,
        "device": speed and speed.device,
        **_intervals(run, result),
    } | {key: result.conditions.get(key) for key in _CONDITIONS}


def _scores(result: VariantResult) -> dict[str, float | None]:
    """All scores of a variant, each followed by its spread if it has one."""
    found: dict[str, float | None] = {}
    for key in COLUMNS:
        found |= {name: result.scores.get(name) for name in (key, SPREADS.get(key)) if name}
    decibels = {key: f"{key}_db" for key in TO_FULL_PRECISION if key not in PAIRED}
    return found | {decibels.get(key, key): result.scores[key] for key in TO_FULL_PRECISION}


def _intervals(run: RunResult, result: VariantResult) -> dict[str, float | None]:
    """Half the widths of the intervals of scores, and of their differences to full precision."""
    held: dict[str, float | None] = {}
    for key in RESAMPLED:
        apart = difference(result, run.baseline, key) if run.baseline and result.is_quantized else None
        for name, found in (("interval", estimate(result, key)), ("difference_interval", apart)):
            held[f"{key}_{name}"] = None if found is None else found.half
        held[f"{key}_seed_spread"] = result.seed_spreads.get(key)
    return held


def metrics_markdown(runs: Sequence[RunResult]) -> str:
    """The metric tables as on the page."""
    blocks = []
    for run in runs:
        rows = metric_rows(run)
        header = ["Variant", *(cell.column for cell in rows[0][1])]
        lines = [header, ["---", *["---:"] * (len(header) - 1)]]
        for result, cells in rows:
            lines.append([f"{result.label} (`{result.variant.name}`)", *_shown(cells)])
        if cells := floor_row(run):
            lines.append([FLOOR_LABEL, *_shown(cells)])
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        blocks.append(f"## {run.model}\n\n{table}\n\n{' '.join(conditions(run))}\n")
    return "\n".join(blocks)


def _shown(cells: Sequence[Cell]) -> list[str]:
    return [f"{cell.main} ({cell.note})" if cell.note else cell.main for cell in cells]
