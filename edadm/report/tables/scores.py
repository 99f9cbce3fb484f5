"""The table of scores: a row of cells for each variant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edadm.report.conditions import extractor_note
from edadm.report.results.intervals import Estimate, difference, estimate
from edadm.report.results.records import COLUMNS, PAIRED, RunResult, VariantResult
from edadm.report.tables.words import ABSENT, INDISTINCT, megabytes, milliseconds, signed

FLOOR_LABEL = "as many real images"
SPREAD = "σ"  # standard deviation of one learning
NORMAL = 1.96  # standard deviations of 95 %


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


def floor_row(run: RunResult) -> list[Cell]:
    """What as many real images score, in the columns of the others; empty where it is not known."""
    found, columns = run.variants[0].floor, [cell.column for cell in metric_rows(run)[0][1]]
    if not found:
        return []
    named = extractor_note(run.variants[0].conditions)
    cells = {column: Cell(column, ABSENT) for column in columns}
    for key, (column, digits) in COLUMNS.items():
        if key in found:
            one, title = found[key], _titled(column, named)
            range_ = None if one["spread"] is None else NORMAL * one["spread"]
            note = "held out" if one["held_out"] else "Gaussian draws"
            cells[title] = Cell(title, _with_range(one["mean"], range_, digits), note)
    return list(cells.values())


def _titled(column: str, named: str) -> str:
    return f"{column} ({named})" if named else column


def _with_range(value: float, half: float | None, digits: int) -> str:
    return f"{value:.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}")


def _difference(found: Estimate | None, digits: int) -> str:
    """With its interval, and, where that holds 0, that it shows nothing."""
    if found is None:
        return ""
    apart = "" if found.half is None else f" ± {found.half:.{digits}f}"
    return f"{signed(found.value, digits)}{apart}" + (f", {INDISTINCT}" if found.is_zero else "")


def _cells(result: VariantResult, run: RunResult) -> Iterator[Cell]:
    baseline = run.baseline if result.is_quantized else None
    named = extractor_note(result.conditions)
    for key, (column, digits) in COLUMNS.items():
        title, found = _titled(column, "" if key == "clip_score" else named), estimate(result, key)
        apart = _difference(difference(result, baseline, key), digits) if baseline and found else ""
        note = ", ".join(filter(None, (apart, _seeds(result, key, digits) if found else "")))
        yield Cell(title, ABSENT if found is None else _with_range(found.value, found.half, digits), note)
    yield _psnr_cell(result)
    for key, (column, digits) in PAIRED.items():
        found = estimate(result, key)
        main = ABSENT if found is None else _with_range(found.value, found.half, digits)
        yield Cell(column, main, _seeds(result, key, digits) if found else "")
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


def _seeds(result: VariantResult, key: str, digits: int) -> str:
    """How far single learnings lie from their mean."""
    spread = result.seed_spreads.get(key)
    return "" if spread is None else f"seeds {SPREAD} {spread:.{digits}f}"


def _psnr_cell(result: VariantResult) -> Cell:
    found = estimate(result, "psnr")
    if found is None:
        return Cell("PSNR", ABSENT)
    worst, of_mean = result.scores.get("psnr_worst"), result.scores.get("psnr_of_mean_error")
    notes = (
        _seeds(result, "psnr", 1),
        f"worst 5 %: {worst:.1f}" if worst is not None else "",
        f"mean error: {of_mean:.1f}" if of_mean is not None else "",
        f"{result.parity['psnr']:.1f} dB to simulated" if result.parity else "",
    )
    return Cell("PSNR", f"{_with_range(found.value, found.half, 1)} dB", ", ".join(filter(None, notes)))
