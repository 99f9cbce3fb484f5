"""The results of a run, read from its artifacts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edadm.artifacts import reading
from edadm.config.backends import INTEGER, backend_label, variant_suffixes
from edadm.config.layout import FULL_PRECISION, Layout, Variant
from edadm.config.methods import METHODS
from edadm.errors import EdadmError
from edadm.report.results.files import (
    AGAIN,
    first_images,
    read_json,
    refuse_another_run,
    refuse_scores_of_others,
    table_rows,
)
from edadm.report.results.records import (
    SCORES,
    CalibrationResult,
    RunResult,
    Speed,
    UnitErrors,
    VariantResult,
)
from edadm.report.results.seeds import as_one

_TIMES = ("seconds", "fastest", "slowest")


def read_run(results: Path, run: Mapping[str, Any]) -> RunResult:
    """The artifacts of one run.

    Raises:
        EdadmError: a required file is absent or damaged, or the variants were not scored under the same
            conditions.
    """
    layout, model, presets = Layout(results), run["model"], run["presets"]
    names = sorted(map(Variant, run["variants"]), key=lambda variant: variant.is_quantized)
    shards = run["evaluation_settings"]["shards"]
    speeds = _read_speeds(results / model / "speed.json")
    found = [_read_variant(layout, model, variant, shards, presets, speeds) for variant in names]
    for other in found[1:]:
        _check_comparable(model, found[0], other)
    learnings: dict[Variant, list[VariantResult]] = {}
    for result in found:
        learnings.setdefault(result.variant.of_seed(1), []).append(result)
    variants = [as_one(several) for several in learnings.values()]
    calibrations = dict.fromkeys(variant.presets[0] for variant in names if variant.is_quantized)
    curves = [_read_calibration(layout, model, calibration) for calibration in calibrations]
    return RunResult(model, variants, curves, run["evaluation"], run["evaluation_settings"], presets)


def variant_label(variant: Variant, presets: Mapping[str, Any]) -> str:
    """A variant in words, e.g. "W4A8 · TDAC + fbr_w4".

    What the words leave open stands in its preset's name.
    """
    if not variant.is_quantized:
        return "full precision"
    calibration, bits, reconstruction = variant.of_seed(1).presets
    widths = f"W{presets['bits'][bits]['weights']}A{presets['bits'][bits]['activations']}"
    if bits.upper() != widths:
        widths = f"{widths} ({bits})"
    selector = {"tdac": "TDAC"}.get(calibration, calibration)
    learned = METHODS[presets["reconstructions"][reconstruction]["method"]].learns
    label = (
        f"{widths} · {selector} + {reconstruction}"
        if learned
        else f"{widths} · {selector}, rounded to nearest"
    )
    return ", ".join(filter(None, (label, backend_label(variant.backend))))


def _read_variant(
    layout: Layout,
    model: str,
    variant: Variant,
    shards: int | str,
    presets: Mapping[str, Any],
    speeds: Mapping[str, Speed],
) -> VariantResult:
    scores, samples = layout.variant(model, variant) / "metrics.json", layout.samples(model, variant, shards)
    metrics = read_json(scores, "psnr", "conditions")
    refuse_scores_of_others(scores, samples)
    return VariantResult(
        variant,
        variant_label(variant, presets),
        {key: metrics.get(key) for key in SCORES},
        metrics["conditions"],
        speeds.get(variant.name),
        _read_units(layout.losses(model, variant), layout.weights(model, variant))
        if variant.is_quantized
        else [],
        first_images(samples),
        metrics.get("parity"),
        speeds.get(f"{variant.checkpoint.name}/{INTEGER}"),
        {key: np.array(values, dtype=float) for key, values in metrics.get("resamples", {}).items()},
        metrics.get("floor", {}),
    )


def _check_comparable(model: str, one: VariantResult, other: VariantResult) -> None:
    names = f"{model}: {one.variant.name} and {other.variant.name}"
    if differing := [
        key
        for key in one.conditions | other.conditions
        if one.conditions.get(key) != other.conditions.get(key)
    ]:
        raise EdadmError(
            f"{names} were scored with different {', '.join(differing)}, so their numbers do not compare; "
            "run `snakemake --forcerun evaluate`"
        )
    if other.images.shape != one.images.shape:
        raise EdadmError(f"{names} differ in number or size of images; run `snakemake --forcerun generate`")


def _read_speeds(path: Path) -> dict[str, Speed]:
    """Speeds by variant, of quantized ones by every backend that was timed, too; empty if nothing was."""
    if not path.exists():
        return {}
    found = read_json(path, "variants", "batch_size", "threads", "device")
    measured = found["variants"]
    reference = measured.get(FULL_PRECISION, {})
    shared = {key: found[key] for key in ("batch_size", "threads", "device")}
    shared |= {"float_bytes": reference.get("bytes"), "float_seconds": reference.get("seconds")}
    shared |= {"bf16_seconds": reference.get("bf16", {}).get("seconds")}
    speeds = {}
    for name, one in measured.items():
        size = one["bytes"]
        speeds[name] = Speed(size, **{key: one[key] for key in _TIMES}, **shared)
        for backend in variant_suffixes():
            if backend in one:
                of_backend = _speed_of_backend(size, one[backend], shared)
                speeds[f"{name}/{backend}"] = of_backend
                speeds.setdefault(f"{name}/{one[backend].get('resolved_backend')}", of_backend)
    return speeds


def _speed_of_backend(size: int, found: Mapping[str, Any], shared: Mapping[str, Any]) -> Speed:
    apart = found["parity"]
    parity = (apart["mean"] / apart["spread"], apart["max"] / apart["spread"])
    times = {key: found[key] for key in _TIMES}
    return Speed(size, **times, **shared, parity=parity)


def _read_calibration(layout: Layout, model: str, calibration: str) -> CalibrationResult:
    path = layout.calibration(model, calibration) / "selection.json"
    found = read_json(path, "counts", "timesteps", "curves")
    refuse_another_run(path, path.with_name("calibration.safetensors"), "select-calibration")
    curves = found["curves"]
    return CalibrationResult(
        calibration, found["counts"], found["timesteps"], curves.get("density"), curves.get("variety")
    )


def _read_units(path: Path, weights: Path) -> list[UnitErrors]:
    refuse_another_run(path, weights, "reconstruct")
    fields, optional = (
        ("before", "soft", "after", "flipped", "scale_drift"),
        ("held_out_before", "held_out_after"),
    )
    with reading(path, AGAIN, what="a table of unit errors"):
        return [
            UnitErrors(
                row["unit"],
                *(float(row[field]) for field in fields),
                *(float(row.get(field) or "nan") for field in optional),
            )
            for row in table_rows(path, ",")
        ]
