"""One self-contained page: no network, no script, the same bytes for the same results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from edadm.artifacts import writing
from edadm.errors import EdadmError
from edadm.report import ablation
from edadm.report.conditions import conditions
from edadm.report.figures import calibration_figure, reconstruction_figure, selection_figure
from edadm.report.gallery.page import gallery_html
from edadm.report.results.read import read_run
from edadm.report.results.records import CalibrationResult, RunResult, VariantResult
from edadm.report.strips import GAIN, strips_of
from edadm.report.tables.export import metrics_csv, metrics_markdown
from edadm.report.tables.findings import finding, reconstruction_summary
from edadm.report.tables.rows import (
    UNIT_COLUMNS,
    device_rows,
    settings_rows,
    size_rows,
    stage_rows,
    unit_rows,
)
from edadm.report.tables.scores import FLOOR_LABEL, Cell, floor_row, metric_rows
from edadm.report.times import read_devices, read_times

_NEEDED = ("model", "variants", "evaluation", "evaluation_settings", "presets")
_FIRST = ("FID", "Size", "PSNR", "Speed")  # columns


def write_page(results: Path, runs: Sequence[Mapping[str, Any]], output: Path) -> None:
    """Writes the page, and beside it the gallery, and its tables as `.csv` and `.md`.

    `metrics` is of all variants, `ablation` of quantized ones.

    Args:
        results: the results folder, laid out as in `edadm.config.layout`.
        runs: the runs of a configuration, each with the `evaluation_settings` and the `presets` (`model`,
            `calibrations`, `bits`, `reconstructions`) that its names stand for.
        output: the HTML file.

    Raises:
        EdadmError: there are no runs, or an artifact is missing or damaged.
    """
    if not runs:
        raise EdadmError("there is nothing to report; name at least one run under `runs`")
    for run in runs:
        if missing := [key for key in _NEEDED if key not in run]:
            raise EdadmError(
                f"a run to report lacks {', '.join(missing)}; let the workflow call `edadm report`, which "
                "adds them"
            )
    found = [read_run(results, run) for run in runs]
    environment = _environment()
    html = environment.get_template("page.html.j2").render(
        runs=[_run(run) for run in found],
        stages=stage_rows(read_times(results)),
        devices=device_rows(read_devices(results)),
        gain=GAIN,
    )
    for path, text in (
        (output, html),
        (output.with_name("gallery.html"), gallery_html(environment, results, found)),
        (output.with_name("metrics.csv"), metrics_csv(found)),
        (output.with_name("metrics.md"), metrics_markdown(found)),
        (output.with_name("ablation.csv"), ablation.ablation_csv(found)),
        (output.with_name("ablation.md"), ablation.ablation_markdown(found)),
    ):
        with writing(path) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _run(run: RunResult) -> dict[str, Any]:
    """A run as the template wants it."""
    return {
        "model": run.model,
        "facts": _facts(run),
        "finding": finding(run),
        "rows": [(result, _answers_first(cells)) for result, cells in metric_rows(run)],
        "floor": _answers_first(floor_row(run)),
        "floor_label": FLOOR_LABEL,
        "conditions": conditions(run),
        "strips": strips_of(run.variants),
        "seed": run.evaluation_settings["seed"],
        "has_baseline": run.baseline is not None,
        "ablation": _ablation(run) if ablation.is_ablation(run) else None,
        "selections": Markup(selection_figure(run.calibrations)) if len(run.calibrations) > 1 else None,
        "calibrations": [_calibration(calibration) for calibration in _with_own_curves(run.calibrations)],
        "reconstructions": [_reconstruction(result) for result in run.checkpoints if result.units],
        "unit_columns": UNIT_COLUMNS,
        "unlearned": [result.label for result in run.checkpoints if not result.units],
        "sizes": size_rows(run),
        "settings": list(_settings(run)),
    }


def _answers_first(cells: Sequence[Cell]) -> list[Cell]:
    """The columns in the order of the page, on whose first screen of a phone there is room for two."""
    order = {column: index for index, column in enumerate(_FIRST)}
    return sorted(cells, key=lambda cell: order.get(cell.column.split(" ")[0], len(order)))


def _facts(run: RunResult) -> str:
    """The model in a line, e.g. "DDIM, 20 steps · 3 × 32 × 32 · 256 images per variant"."""
    sampler, images = run.presets["model"]["sampler"], run.variants[0].conditions["images"]
    height, width = run.variants[0].images.shape[2:]
    return (
        f"{sampler['method'].upper()}, {sampler['steps']} steps · {height} × {width} pixels · {images:,} "
        "images per variant"
    )


def _ablation(run: RunResult) -> dict[str, Any]:
    table = ablation.ablation_of(run)
    title = f"PSNR and FID of {run.model} by bits, reconstruction and selector"
    return {"findings": ablation.findings(table), "figure": Markup(ablation.ablation_figure(table, title))}


def _with_own_curves(calibrations: Sequence[CalibrationResult]) -> list[CalibrationResult]:
    """The results to show in full: the only one, or the first with each pair of curves.

    A figure shows the samples of all.
    """
    if len(calibrations) < 2:
        return list(calibrations)
    shown: list[CalibrationResult] = []
    for calibration in calibrations:
        curves = (calibration.density, calibration.variety)
        if None not in curves and curves not in [(known.density, known.variety) for known in shown]:
            shown.append(calibration)
    return shown


def _calibration(calibration: CalibrationResult) -> dict[str, Any]:
    counts = calibration.counts
    most, least = counts.index(max(counts)), counts.index(min(counts))
    span = f"most at step {most} ({max(counts)}), fewest at step {least} ({min(counts)})"
    return {
        "name": calibration.name,
        "text": f"{sum(counts):,} samples over {len(counts)} steps, "
        f"{span if max(counts) > min(counts) else 'equally many at each'}.",
        "has_curves": calibration.density is not None and calibration.variety is not None,
        "figure": Markup(calibration_figure(calibration)),
    }


def _reconstruction(result: VariantResult) -> dict[str, Any]:
    return {
        "label": result.label,
        "path": result.variant.name,
        "summary": reconstruction_summary(result.units),
        "units": unit_rows(result.units),
        "figure": Markup(
            reconstruction_figure(result.units, f"Unit errors of {result.label} before and after learning")
        ),
    }


def _settings(run: RunResult) -> Iterator[dict[str, Any]]:
    """Every preset the run used: its kind, name and settings."""
    yield {"kind": "model", "name": run.model, "rows": list(settings_rows(run.presets["model"]))}
    for kind in ("calibrations", "bits", "reconstructions"):
        for name, preset in run.presets[kind].items():
            yield {
                "kind": kind.removesuffix("s") if kind != "bits" else kind,
                "name": name,
                "rows": list(settings_rows(preset)),
            }
    yield {
        "kind": "evaluation",
        "name": run.evaluation,
        "rows": list(settings_rows(run.evaluation_settings)),
    }
