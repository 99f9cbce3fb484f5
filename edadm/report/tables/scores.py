"""The table of scores: a row of cells for each variant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edadm.report.conditions import extractor_note
from edadm.report.results.records import SPREADS, RunResult, VariantResult
from edadm.report.tables.words import ABSENT, megabytes, milliseconds, signed

_SCORE_COLUMNS = (  # key, column, digits
    ("fid", "FID", 2),
    ("sfid", "sFID", 2),
    ("inception_score", "IS", 2),
    ("kid", "KID", 5),
    ("precision", "Precision", 3),
    ("recall", "Recall", 3),
    ("clip_score", "CLIP score", 2),
)


@dataclass(frozen=True)
class Cell:
    """A number, and a smaller remark below it; both formatted."""

    column: str
    main: str
    note: str = ""


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
        milliseconds(result.speed.seconds),
        milliseconds(result.speed.fastest, result.speed.slowest),
    )
    if relative is None:
        yield Cell("Speed", median, span)
        return
    shown = any(other.speed is result.integers for other in run.variants)
    with_integers = "" if shown or not result.integers else f", integers {result.integers.relative:.2f}×"
    yield Cell("Speed", f"{relative:.2f}×", f"{median}, {span}{with_integers}")
