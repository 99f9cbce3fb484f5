"""Sentences about the variants of a run, and about what learning did to their units."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from edadm.report.results.intervals import alike, difference
from edadm.report.results.records import RunResult, UnitErrors, VariantResult
from edadm.report.tables.words import INDISTINCT, signed

MOST_NAMED = 5


def finding(run: RunResult) -> str:
    """One sentence on which variant stays nearest to full precision and which is the smallest.

    Those whose PSNR the images cannot tell apart from the highest are named together. Empty if unknown.
    """
    scored = [result for result in run.checkpoints if result.scores["psnr"] is not None]
    if not scored:
        return ""
    nearest = alike(scored, "psnr")
    named = " and ".join(f"{result.label} ({_quality(result, run.baseline)})" for result in nearest)
    if len(nearest) == 1:
        text = f"{nearest[0].label} stays nearest to full precision ({_quality(nearest[0], run.baseline)})"
    else:
        text = f"{named} stay nearest to full precision; their PSNR is not distinguishable"
    sized = [(result, result.speed.bytes) for result in scored if result.speed and result.speed.smaller]
    if not sized:
        return f"{text}."
    least = min(size for _, size in sized)
    # Files of one bit width differ by their metadata only: a percent is no difference, the better images are.
    smallest = max((result for result, size in sized if size <= 1.01 * least), key=_psnr)
    assert smallest.speed is not None
    times = f"{smallest.speed.smaller:.1f} times smaller"
    if [smallest] == nearest:
        return f"{text} and has the smallest file, {times} than the float one."
    quality = "" if smallest in nearest else f" ({_quality(smallest, run.baseline)})"
    return f"{text}; {smallest.label} has the smallest file, {times}{quality}."


def _psnr(result: VariantResult) -> float:
    return result.scores["psnr"] or 0.0


def _quality(result: VariantResult, baseline: VariantResult | None) -> str:
    text = f"{_psnr(result):.1f} dB"
    if baseline and (found := difference(result, baseline, "fid")):
        text += f", FID {INDISTINCT if found.is_zero else signed(found.value)}"
    return text


def reconstruction_summary(units: Sequence[UnitErrors]) -> str:
    """What learning did to the unit errors, in a few sentences."""
    median = statistics.median(unit.ratio for unit in units)
    best = min(units, key=lambda unit: unit.ratio)
    text = (
        f"Over {len(units)} units learning multiplied the error by {median:.2f} (median), at best by "
        f"{best.ratio:.2f} in {best.name}. "
    )
    worse = sorted((unit for unit in units if unit.grew), key=lambda unit: -unit.ratio)
    if worse:
        named = ", ".join(f"{unit.name} (×{unit.ratio:.2f})" for unit in worse[:MOST_NAMED])
        text += f"It grew in {len(worse)} of them{', most' if len(worse) > MOST_NAMED else ''}: {named}. "
    else:
        text += "It grew in none. "
    text += _held_out_sentence(units)
    flipped = statistics.median(unit.flipped for unit in units)
    hardened = statistics.median(unit.hardening for unit in units)
    drift = math.expm1(statistics.median(unit.scale_drift for unit in units))
    return text + (
        f"Per unit, in the median, {flipped:.1%} of the weights are no longer rounded to nearest, making the "
        "rounding hard changed "
        f"the error by {signed(100 * (hardened - 1), 1)}%, and activation step sizes moved by {drift:.1%}."
    )


def _held_out_sentence(units: Sequence[UnitErrors]) -> str:
    ratios = [ratio for unit in units if (ratio := unit.held_out_ratio) is not None]
    if not ratios:
        return ""
    grew = sum(not ratio <= 1 for ratio in ratios)
    return (
        f"On held-out samples learning multiplied it by {statistics.median(ratios):.2f} (median), and it "
        f"grew in {grew or 'none'}. "
    )
