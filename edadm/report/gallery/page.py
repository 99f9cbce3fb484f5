"""The gallery as one self-contained page: no network, the same bytes for the same results."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from edadm.artifacts import reading
from edadm.config.layout import Layout
from edadm.report.gallery.images import (
    BUDGET,
    LEVELS,
    Chosen,
    Picture,
    chosen,
    count_images,
    images_at,
    legend,
    pictures,
)
from edadm.report.gallery.layers import File, layer_rows, read_file, units_of
from edadm.report.gallery.steps import StepErrors, read_step_errors, step_figure, step_table
from edadm.report.results.files import AGAIN
from edadm.report.results.records import RunResult, VariantResult
from edadm.report.tables.findings import finding
from edadm.report.tables.scores import Cell, metric_rows

_SHOWN = ("PSNR", "Size", "FID")  # columns of the first table
WIDEST, NARROWEST = 128, 64  # CSS pixels of a picture in the table


def gallery_html(environment: Environment, results: Path, runs: Sequence[RunResult]) -> str:
    """The page of all runs.

    Args:
        environment: has the templates of the report.
        results: the results folder, in which images and files of weights are looked up.
        runs: as read for the report.

    Raises:
        EdadmError: an artifact is damaged.
    """
    layout = Layout(results)
    return environment.get_template("gallery/gallery.html.j2").render(
        runs=[_run(layout, run, BUDGET / len(runs)) for run in runs],
        legend=legend(),
        most=LEVELS[-1],
    )


def _run(layout: Layout, run: RunResult, budget: float) -> dict[str, Any]:
    """A run as the template wants it."""
    shards = run.evaluation_settings["shards"]
    files = {result.variant: layout.samples(run.model, result.variant, shards) for result in run.variants}
    height, width = run.variants[0].images.shape[2:]
    total = min(count_images(of) for of in files.values())
    spread = chosen(total, (height, width), len(run.variants), budget)
    images = {variant: images_at(of, spread.indices) for variant, of in files.items()}
    of_full = images[run.baseline.variant] if run.baseline else None
    shown = {
        result.variant: pictures(
            images[result.variant], of_full if result.is_quantized else None, spread.reduced
        )
        for result in run.variants
    }
    prompts = _prompts(layout.prompts(run.model))
    side = width // spread.reduced
    return {
        "model": run.model,
        "finding": finding(run),
        "rows": [(result, _cells(cells)) for result, cells in metric_rows(run)],
        "variants": run.variants,
        "has_baseline": run.baseline is not None and len(run.variants) > 1,
        "sampled": _sampled(spread, (height, width)),
        "size": side * max(1, WIDEST // side) if side < NARROWEST else min(side, WIDEST),
        "is_small": side < WIDEST,
        "noises": [
            {
                "index": index,
                "prompt": prompts[index] if index < len(prompts) else "",
                "pictures": [_picture(shown[result.variant][row]) for result in run.variants],
            }
            for row, index in enumerate(spread.indices)
        ],
        "steps": _steps(layout, run),
        **_layers(layout, run),
    }


def _cells(cells: Sequence[Cell]) -> list[Cell]:
    """The columns to begin with; what else is known of the images stands in the report."""
    known = {cell.column.split(" ")[0]: cell for cell in cells}
    shown = [known[column] for column in _SHOWN if column in known]
    return [replace(cell, note="") if cell.column == "PSNR" else cell for cell in shown]


def _sampled(spread: Chosen, size: tuple[int, int]) -> str:
    """Which images are shown, and at what size, in a sentence."""
    count = len(spread.indices)
    text = (
        f"All {count} images" if count == spread.images else f"{count} of {spread.images:,} images"
    ) + " of every variant"
    if count < spread.images:
        text += ", evenly spaced over their noises"
    if spread.reduced > 1:
        text += f", of {size[1]} × {size[0]} pixels, averaged down by {spread.reduced}"
    return f"{text}."


def _picture(one: Picture) -> dict[str, str]:
    if one.mean is None or one.psnr is None:
        return {"uri": one.uri, "heat": "", "note": "", "apart": ""}
    note = "equal" if math.isinf(one.psnr) else f"{one.psnr:.1f} dB"
    apart = f"PSNR {note}, mean error {one.mean:.1f} grey levels"
    return {"uri": one.uri, "heat": one.heat, "note": note, "apart": apart}


def _prompts(path: Path) -> list[str]:
    """Prompts of all images in order; empty where none were scored."""
    if not path.is_file():
        return []
    with reading(path, AGAIN, what="prompts"):
        return [str(prompt) for prompt in json.loads(path.read_text(encoding="utf-8"))]


def _steps(layout: Layout, run: RunResult) -> dict[str, Any] | None:
    """The errors by timestep of those checkpoints that they were measured of."""
    found: list[StepErrors] = []
    for result in run.checkpoints:
        path = layout.step_errors(run.model, result.variant)
        weights = layout.weights(run.model, result.variant)
        if path.is_file() and weights.is_file():
            found += read_step_errors(path, weights, result.label)
    found = [one for one in found if one.timesteps == found[0].timesteps]
    if not found:
        return None
    return {
        "figure": Markup(step_figure(found)),
        "labels": [one.label for one in found],
        "table": step_table(found),
        "states": min(one.states for one in found),
    }


def _layers(layout: Layout, run: RunResult) -> Mapping[str, Any]:
    """Bytes and errors by unit and by layer of all checkpoints that are there."""
    files: dict[str, File] = {}
    results: list[VariantResult] = []
    for result in run.checkpoints:
        path = layout.weights(run.model, result.variant)
        if path.is_file():
            files[result.variant.name] = read_file(path)
            results.append(result)
    path = layout.float_weights(run.model)
    full, units = read_file(path) if path.is_file() else None, units_of(results)
    return {
        "checkpoints": results,
        "units": layer_rows(full, files, results, units) if results and units else [],
        "layers": layer_rows(full, files, results, []) if results else [],
    }
