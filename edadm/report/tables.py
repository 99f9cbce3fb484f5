"""Numbers as people read them: the metric table in HTML cells, CSV and Markdown, and sentences about it."""

from __future__ import annotations

import csv
import io
import math
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edadm.report.conditions import conditions, extractor_note
from edadm.report.read import SPREADS, RunResult, UnitErrors, VariantResult
from edadm.report.times import StageTime

ABSENT = "–"
MEGABYTE = 1e6
MOST_NAMED = 5
_SCORE_COLUMNS = (  # key, column, digits
    ("fid", "FID", 2),
    ("sfid", "sFID", 2),
    ("inception_score", "IS", 2),
    ("kid", "KID", 5),
    ("precision", "Precision", 3),
    ("recall", "Recall", 3),
    ("clip_score", "CLIP score", 2),
)
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
)


@dataclass(frozen=True)
class Cell:
    """A number, and a smaller remark below it; both formatted."""

    column: str
    main: str
    note: str = ""


def signed(value: float, digits: int = 2) -> str:
    """With its sign, e.g. "+0.31" and "−1.20" (a true minus)."""
    return f"{value:+.{digits}f}".replace("-", "−")


def megabytes(size: int) -> str:
    """Bytes as decimal MB, e.g. "13.41 MB"."""
    return f"{size / MEGABYTE:.2f} MB"


def duration(seconds: float | None) -> str:
    """Seconds in words, e.g. "3.2 s", "4 min 12 s", "1 h 03 min"."""
    if seconds is None:
        return ABSENT
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _milliseconds(*seconds: float) -> str:
    """One duration or a range, e.g. "4.31 ms" and "401–916 ms"."""
    values = [1000 * second for second in seconds]
    return "–".join(f"{value:.0f}" if value >= 100 else f"{value:.3g}" for value in values) + " ms"


def metric_rows(run: RunResult) -> list[tuple[VariantResult, list[Cell]]]:
    """Each variant with its cells; a column that no variant has a number for is left out."""
    rows = [(result, list(_cells(result, run))) for result in run.variants]
    filled = {cell.column for _, cells in rows for cell in cells if cell.main != ABSENT}
    return [(result, [cell for cell in cells if cell.column in filled]) for result, cells in rows]


def _cells(result: VariantResult, run: RunResult) -> Iterator[Cell]:
    baseline = run.baseline
    named = extractor_note(result.conditions)
    for key, column, digits in _SCORE_COLUMNS:
        value = result.scores[key]
        reference = baseline.scores[key] if baseline and result.is_quantized else None
        difference = "" if value is None or reference is None else signed(value - reference, digits)
        title = column if key == "clip_score" or not named else f"{column} ({named})"
        spread = result.scores.get(SPREADS.get(key, ""))
        apart = "" if spread is None else f" ± {spread:.{digits}f}"
        yield Cell(title, ABSENT if value is None else f"{value:.{digits}f}{apart}", difference)
    decibel = result.scores["psnr"]
    to_simulated = f"{result.parity['psnr']:.1f} dB to simulated" if result.parity else ""
    yield Cell("PSNR", ABSENT if decibel is None else f"{decibel:.1f} dB", to_simulated)
    if result.speed is None:
        yield from (Cell("Size", ABSENT), Cell("Speed", ABSENT))
        return
    smaller, relative = result.speed.smaller, result.speed.relative
    yield Cell(
        "Size",
        megabytes(result.speed.bytes),
        f"{smaller:.2f}× smaller" if smaller and result.is_quantized else "",
    )
    median, span = (
        _milliseconds(result.speed.seconds),
        _milliseconds(result.speed.fastest, result.speed.slowest),
    )
    if relative is None:
        yield Cell("Speed", median, span)
        return
    shown = any(other.speed is result.integers for other in run.variants)
    with_integers = "" if shown or not result.integers else f", integers {result.integers.relative:.2f}×"
    yield Cell("Speed", f"{relative:.2f}×", f"{median}, {span}{with_integers}")


def finding(run: RunResult) -> str:
    """One sentence on which variant stays nearest to full precision and which is the smallest.

    Empty if unknown.
    """
    scored = [result for result in run.checkpoints if result.scores["psnr"] is not None]
    if not scored:
        return ""
    nearest = max(scored, key=_psnr)
    text = f"{nearest.label} stays nearest to full precision ({_quality(nearest, run.baseline)})"
    sized = [(result, result.speed.bytes) for result in scored if result.speed and result.speed.smaller]
    if not sized:
        return f"{text}."
    least = min(size for _, size in sized)
    # Files of one bit width differ by their metadata only: a percent is no difference, the better images are.
    smallest = max((result for result, size in sized if size <= 1.01 * least), key=_psnr)
    assert smallest.speed is not None
    times = f"{smallest.speed.smaller:.1f} times smaller"
    if smallest is nearest:
        return f"{text} and has the smallest file, {times} than the float one."
    return f"{text}; {smallest.label} has the smallest file, {times} ({_quality(smallest, run.baseline)})."


def _psnr(result: VariantResult) -> float:
    return result.scores["psnr"] or 0.0


def _quality(result: VariantResult, baseline: VariantResult | None) -> str:
    text = f"{_psnr(result):.1f} dB"
    if baseline and result.scores["fid"] is not None and baseline.scores["fid"] is not None:
        text += f", FID {signed(result.scores['fid'] - baseline.scores['fid'])}"
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
        "fid": result.scores["fid"],
        "sfid": result.scores["sfid"],
        "inception_score": result.scores["inception_score"],
        "inception_score_spread": result.scores.get("inception_score_spread"),
        "kid": result.scores["kid"],
        "kid_spread": result.scores.get("kid_spread"),
        "precision": result.scores["precision"],
        "recall": result.scores["recall"],
        "clip_score": result.scores["clip_score"],
        "psnr_db": result.scores["psnr"],
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
    } | {key: result.conditions.get(key) for key in _CONDITIONS}


def metrics_markdown(runs: Sequence[RunResult]) -> str:
    """The metric tables as on the page."""
    blocks = []
    for run in runs:
        rows = metric_rows(run)
        header = ["Variant", *(cell.column for cell in rows[0][1])]
        lines = [header, ["---", *["---:"] * (len(header) - 1)]]
        for result, cells in rows:
            shown = [f"{cell.main} ({cell.note})" if cell.note else cell.main for cell in cells]
            lines.append([f"{result.label} (`{result.variant.name}`)", *shown])
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        blocks.append(f"## {run.model}\n\n{table}\n\n{conditions(run)}\n")
    return "\n".join(blocks)


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
