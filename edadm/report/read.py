"""What a run left behind, as plain records; a missing file is told with the command that makes it."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edadm.artifacts import intact
from edadm.config.backends import INTEGER, backend_label, variant_suffixes
from edadm.config.layout import FULL_PRECISION, Layout, Variant
from edadm.config.methods import METHODS
from edadm.errors import EdadmError

SHOWN_IMAGES = 16
_TIMES = ("seconds", "fastest", "slowest")
SPREADS = {
    "inception_score": "inception_score_spread",
    "kid": "kid_spread",
}  # standard deviations over splits and subsets
SCORES = (
    "fid",
    "sfid",
    "inception_score",
    "kid",
    "precision",
    "recall",
    "clip_score",
    "psnr",
    *SPREADS.values(),
)


@dataclass(frozen=True)
class Speed:
    """Bytes of a checkpoint and seconds per network evaluation, beside full precision in the same process.

    Seconds are a median and a range.

    The float numbers are None where full precision is not among the timed variants. `bf16_seconds` are those
    of full precision with bf16 weights, where they were timed. `parity` is the mean and the largest
    difference between a prediction with integers and the simulated one, in standard deviations, where the
    seconds are those of integers.
    """

    bytes: int
    seconds: float
    fastest: float
    slowest: float
    float_bytes: int | None
    float_seconds: float | None
    batch_size: int
    threads: int
    device: str
    bf16_seconds: float | None = None
    parity: tuple[float, float] | None = None

    @property
    def smaller(self) -> float | None:
        """How many times the file fits into the float file."""
        return None if self.float_bytes is None else self.float_bytes / self.bytes

    @property
    def relative(self) -> float | None:
        """Speed, where 1 is full precision."""
        return None if self.float_seconds is None else self.float_seconds / self.seconds


@dataclass(frozen=True)
class UnitErrors:
    """One reconstructed unit, as in `edadm.learning.engine.UnitReport`.

    Held-out errors are not numbers if none were measured.
    """

    name: str
    before: float
    soft: float
    after: float
    flipped: float
    scale_drift: float
    held_out_before: float = math.nan
    held_out_after: float = math.nan

    @property
    def held_out_ratio(self) -> float | None:
        """Error after learning relative to before, on rows that nothing learned from; None if unknown."""
        return None if math.isnan(self.held_out_before) else _ratio(self.held_out_after, self.held_out_before)

    @property
    def ratio(self) -> float:
        """Error after learning relative to before; below 1 is an improvement."""
        return _ratio(self.after, self.before)

    @property
    def hardening(self) -> float:
        """Error with integer rounding relative to that with fractional rounding."""
        return _ratio(self.after, self.soft)

    @property
    def grew(self) -> bool:
        """Whether learning made the unit worse; an error that is no number counts as worse."""
        return not self.after <= self.before


@dataclass(frozen=True)
class CalibrationResult:
    """Calibration samples per sampler step.

    Density and variety in [0, 1] are None where the selector has none.
    """

    name: str
    counts: list[int]
    timesteps: list[int]
    density: list[float] | None
    variety: list[float] | None


@dataclass(frozen=True)
class VariantResult:
    """All results of one variant; `images` (n, 3, h, w) uint8 are its first ones.

    `units` is empty if none was learned.

    `scores` has every key of `SCORES`, with None for what was not computed. `parity` is, for images made with
    integers beside simulated ones, an `edadm.metrics.scores.paired.Parity`. `integers` is the speed of
    the same checkpoint with integers, where that was timed.
    """

    variant: Variant
    label: str
    scores: dict[str, float | None]
    conditions: dict[str, Any]
    speed: Speed | None
    units: list[UnitErrors]
    images: np.ndarray
    parity: dict[str, float] | None = None
    integers: Speed | None = None

    @property
    def is_quantized(self) -> bool:
        """Whether it is not the full-precision model."""
        return self.variant.is_quantized


@dataclass(frozen=True)
class RunResult:
    """One model, its variants with full precision first, and the settings they were made with."""

    model: str
    variants: list[VariantResult]
    calibrations: list[CalibrationResult]
    evaluation: str
    evaluation_settings: dict[str, Any]
    presets: dict[str, Any]

    @property
    def baseline(self) -> VariantResult | None:
        """Full precision, if it is among the variants."""
        return next((result for result in self.variants if not result.is_quantized), None)

    @property
    def checkpoints(self) -> list[VariantResult]:
        """Of the quantized variants one per checkpoint, the simulated one if there is one."""
        names = {result.variant for result in self.variants}
        quantized = [(result, result.variant.checkpoint) for result in self.variants if result.is_quantized]
        return [
            result
            for result, checkpoint in quantized
            if checkpoint == result.variant or checkpoint not in names
        ]


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
    variants = [_read_variant(layout, model, variant, shards, presets, speeds) for variant in names]
    for other in variants[1:]:
        _check_comparable(model, variants[0], other)
    calibrations = dict.fromkeys(variant.presets[0] for variant in names if variant.is_quantized)
    curves = [_read_calibration(layout, model, calibration) for calibration in calibrations]
    return RunResult(model, variants, curves, run["evaluation"], run["evaluation_settings"], presets)


def variant_label(variant: Variant, presets: Mapping[str, Any]) -> str:
    """A variant in words, e.g. "W4A8 · TDAC + fbr_w4".

    What the words leave open stands in its preset's name.
    """
    if not variant.is_quantized:
        return "full precision"
    calibration, bits, reconstruction = variant.presets
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
    shards: int,
    presets: Mapping[str, Any],
    speeds: Mapping[str, Speed],
) -> VariantResult:
    metrics = _read_json(layout.variant(model, variant) / "metrics.json", "psnr", "conditions")
    return VariantResult(
        variant,
        variant_label(variant, presets),
        {key: metrics.get(key) for key in SCORES},
        metrics["conditions"],
        speeds.get(variant.name),
        _read_units(layout.losses(model, variant)) if variant.is_quantized else [],
        _first_images(layout.samples(model, variant, shards)),
        metrics.get("parity"),
        speeds.get(f"{variant.checkpoint.name}/{INTEGER}"),
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
    found = _read_json(path, "variants", "batch_size", "threads", "device")
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
    found = _read_json(
        layout.calibration(model, calibration) / "selection.json", "counts", "timesteps", "curves"
    )
    curves = found["curves"]
    return CalibrationResult(
        calibration, found["counts"], found["timesteps"], curves.get("density"), curves.get("variety")
    )


def _read_units(path: Path) -> list[UnitErrors]:
    fields, optional = (
        ("before", "soft", "after", "flipped", "scale_drift"),
        ("held_out_before", "held_out_after"),
    )
    try:
        return [
            UnitErrors(
                row["unit"],
                *(float(row[field]) for field in fields),
                *(float(row.get(field) or "nan") for field in optional),
            )
            for row in table_rows(path, ",")
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise EdadmError(
            f"{path} is not a table of unit errors ({error}); delete it and run `snakemake` again"
        ) from None


def _first_images(files: Sequence[Path]) -> np.ndarray:
    """The first images of all shards, (n, 3, h, w) uint8 with n at most `SHOWN_IMAGES`."""
    parts: list[np.ndarray] = []
    for file in files:
        missing = SHOWN_IMAGES - sum(map(len, parts))
        if missing == 0:
            break
        _require(file)
        try:
            images = np.load(file, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError, SyntaxError) as error:
            raise EdadmError(
                f"{file} does not hold images ({error}); delete it and run `snakemake` again"
            ) from None
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise EdadmError(
                f"{file} holds {images.dtype} {images.shape}, not uint8 images (n, 3, h, w); delete it and "
                "run `snakemake` again"
            )
        parts.append(np.array(images[:missing]))
    return np.concatenate(parts)


def _read_json(path: Path, *keys: str) -> dict[str, Any]:
    """A JSON object that has at least `keys`."""
    _require(path)
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise EdadmError(f"{path} is not valid JSON ({error}); delete it and run `snakemake` again") from None
    if not isinstance(found, dict):
        raise EdadmError(f"{path} holds no JSON object; delete it and run `snakemake` again")
    intact(path)
    if missing := [key for key in keys if key not in found]:
        raise EdadmError(f"{path} lacks {', '.join(missing)}; delete it and run `snakemake` again")
    return found


def table_rows(path: Path, delimiter: str) -> list[dict[str, str]]:
    """A table with a header, a mapping per row."""
    _require(path)
    intact(path)
    with open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def _require(path: Path) -> None:
    if not path.is_file():
        raise EdadmError(
            f"there is no {path}; make it with `snakemake {path}`, or take its variant out of `runs`"
        )


def _ratio(above: float, below: float) -> float:
    """Infinity in place of an error that is no number, so that medians and worst units come out right."""
    if above == below == 0:
        return 1.0
    return above / below if below != 0 and math.isfinite(above) else math.inf
