"""What a run left behind, as plain records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edadm.config.layout import Variant

COLUMNS = {  # of the tables of scores, in order, and in the CSV: title and digits by key
    "fid": ("FID", 2),
    "fid_infinity": ("FID∞", 2),
    "sfid": ("sFID", 2),
    "inception_score": ("IS", 2),
    "kid": ("KID", 5),
    "precision": ("Precision", 3),
    "recall": ("Recall", 3),
    "cmmd": ("CMMD", 3),
    "clip_score": ("CLIP score", 2),
    "class_accuracy": ("Class accuracy", 3),
}
SPREADS = {
    "inception_score": "inception_score_spread",
    "kid": "kid_spread",
}  # standard deviations over splits and subsets
PAIRED = {  # columns of their own behind PSNR's, likewise
    "ssim": ("SSIM", 3),
    "flip": ("FLIP", 3),
    "lpips": ("LPIPS", 3),
    "dists": ("DISTS", 3),
}
TO_FULL_PRECISION = ("psnr", *PAIRED, "psnr_worst", "psnr_of_mean_error")
SCORES = (*COLUMNS, *TO_FULL_PRECISION, *SPREADS.values())
RESAMPLED = (
    "fid",
    "sfid",
    "inception_score",
    "kid",
    "clip_score",
    "class_accuracy",
    "psnr",
    *PAIRED,
)  # have intervals


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
    the same checkpoint with integers, where that was timed. `resamples` are pseudo-values of scores, for
    `edadm.report.results.intervals`; `floor` is what as many real images score, as
    `edadm.metrics.scores.floor.Floor` by score. Of several seeds, `scores` and `resamples` are means,
    `seed_spreads` standard deviations of one learning, and `learnings` are the results of each.
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
    resamples: Mapping[str, np.ndarray] = field(default_factory=dict)
    floor: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    seed_spreads: Mapping[str, float] = field(default_factory=dict)
    learnings: tuple[VariantResult, ...] = ()

    @property
    def seeds(self) -> int:
        """How many learnings its scores are means of."""
        return max(1, len(self.learnings))

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
        quantized = [result for result in self.variants if result.is_quantized]
        own = [(result, result.variant.checkpoint) for result in quantized]
        return [result for result, file in own if file == result.variant or file not in names]


def _ratio(above: float, below: float) -> float:
    """Infinity in place of an error that is no number, so that medians and worst units come out right."""
    if above == below == 0:
        return 1.0
    return above / below if below != 0 and math.isfinite(above) else math.inf
