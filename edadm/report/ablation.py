"""Ablation tables: the quantized variants of a run by selection, reconstruction and bits.

With its figure, CSV and Markdown.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from edadm.report.conditions import extractor_note
from edadm.report.drawing import FIRST, INK, LINE, MUTED, SECOND, STYLE, as_svg, empty_figure
from edadm.report.results.intervals import alike
from edadm.report.results.records import RunResult, VariantResult
from edadm.report.tables.words import ABSENT

FEW = 4  # quantized variants that need no table of their own
ROW = 46  # pixels per row of the figure
DARKEST = 0.5  # opacity of the highest PSNR, on which text is still readable
COLUMNS = (
    "model",
    "bits",
    "reconstruction",
    "selection",
    "fid",
    "psnr_db",
    "images",
    "extractor",
    "reference_set",
)


@dataclass(frozen=True)
class Row:
    """One choice of bits and reconstruction, and its variants by selector."""

    bits: str
    reconstruction: str
    cells: dict[str, VariantResult]

    @property
    def nearest(self) -> list[str]:
        """The selectors with the highest PSNR, as far as images can tell; none where there is no choice."""
        known = {name: result for name, result in self.cells.items() if result.scores["psnr"] is not None}
        top = alike(list(known.values()), "psnr") if len(known) > 1 else []
        return [name for name, result in known.items() if any(result is one for one in top)]

    @property
    def best(self) -> str | None:
        """The selector with the highest PSNR, unless another one is not distinguishable from it."""
        return self.nearest[0] if len(self.nearest) == 1 else None


@dataclass(frozen=True)
class Ablation:
    """Rows grouped by bits, and the selectors that are the columns, all in the order of the configuration."""

    selections: list[str]
    rows: list[Row]

    @property
    def variants(self) -> Iterator[tuple[Row, str, VariantResult]]:
        """Every filled cell."""
        for row in self.rows:
            yield from ((row, name, row.cells[name]) for name in self.selections if name in row.cells)


def ablation_of(run: RunResult) -> Ablation:
    """The table of a run's quantized variants; empty if it has none."""
    found: dict[str, dict[str, dict[str, VariantResult]]] = {}
    selections: dict[str, None] = {}
    for result in run.checkpoints:
        selection, bits, reconstruction = result.variant.presets
        selections[selection] = None
        found.setdefault(bits, {}).setdefault(reconstruction, {})[selection] = result
    rows = [
        Row(bits, reconstruction, cells)
        for bits, learned in found.items()
        for reconstruction, cells in learned.items()
    ]
    return Ablation(list(selections), rows)


def is_ablation(run: RunResult) -> bool:
    """Whether a run has more than a few quantized variants."""
    return len(run.checkpoints) > FEW


def ablation_csv(runs: Sequence[RunResult]) -> str:
    """A line per cell, numbers at full precision; what was not measured is empty."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(COLUMNS)
    for run in runs:
        for row, selection, result in ablation_of(run).variants:
            conditions = [result.conditions.get(key) for key in ("images", "extractor", "reference_set")]
            scores = [result.scores["fid"], result.scores["psnr"]]
            table.writerow([run.model, row.bits, row.reconstruction, selection, *scores, *conditions])
    return text.getvalue()


def ablation_markdown(runs: Sequence[RunResult]) -> str:
    """The table of every run: PSNR and FID per cell."""
    return "\n".join(_markdown(run) for run in runs)


def _markdown(run: RunResult) -> str:
    ablation = ablation_of(run)
    lines = [
        ["Bits", "Reconstruction", *ablation.selections],
        ["---", "---", *["---:"] * len(ablation.selections)],
    ]
    for row in ablation.rows:
        cells = [
            " · ".join(_words(row.cells[name])) if name in row.cells else ABSENT
            for name in ablation.selections
        ]
        lines.append([row.bits, row.reconstruction, *cells])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    held = run.variants[0].conditions
    fid = f"FID ({note})" if (note := extractor_note(held)) else "FID"
    return (
        f"## {run.model}\n\nPSNR to full precision · {fid}, over {held['images']:,} images each.\n\n{table}\n"
    )


def _words(result: VariantResult) -> tuple[str, str]:
    fid, decibel = result.scores["fid"], result.scores["psnr"]
    return (
        ABSENT if decibel is None else f"{decibel:.1f} dB",
        f"FID {ABSENT if fid is None else f'{fid:.2f}'}",
    )


def findings(ablation: Ablation) -> list[str]:
    """A sentence per row with several selectors: which stays nearest, and how far they lie apart."""
    sentences = []
    for row in ablation.rows:
        if not row.nearest:
            continue
        known = {
            name: result.scores["psnr"] or 0.0
            for name, result in row.cells.items()
            if result.scores["psnr"] is not None
        }
        worst = min(known, key=lambda name: known[name])
        where, many = f"{row.bits}, {row.reconstruction}", f"of {len(known)} selectors"
        if row.best is None:
            named = ", ".join(f"{name} ({known[name]:.1f} dB)" for name in row.nearest)
            sentences.append(f"{where}: {many} {named} stay nearest and are not distinguishable.")
        else:
            sentences.append(
                f"{where}: {many} {row.best} stays nearest to full precision "
                f"({known[row.best]:.1f} dB), {worst} least ({known[worst]:.1f} dB)."
            )
    return sentences


def ablation_figure(ablation: Ablation, title: str) -> str:
    """The table as a heat map: a row per bits and reconstruction, a column per selector, tinted by PSNR.

    A frame stands around each row's best.
    """
    decibels = [result.scores["psnr"] for _, _, result in ablation.variants]
    known = [decibel for decibel in decibels if decibel is not None]
    lowest, highest = (min(known), max(known)) if known else (0.0, 0.0)
    with matplotlib.rc_context(STYLE):
        figure = empty_figure(40 + ROW * len(ablation.rows))
        axes = figure.subplots()
        axes.set(xlim=(0, len(ablation.selections)), ylim=(len(ablation.rows), 0))
        for y, row in enumerate(ablation.rows):
            for x, name in enumerate(ablation.selections):
                if name in row.cells:
                    _draw_cell(axes, x, y, row.cells[name], lowest, highest)
            if row.best is not None:
                _draw_frame(axes, ablation.selections.index(row.best), y)
            if y and row.bits != ablation.rows[y - 1].bits:
                axes.axhline(y, color=MUTED, linewidth=1)
        axes.set_xticks([x + 0.5 for x in range(len(ablation.selections))], ablation.selections)
        axes.set_yticks(
            [y + 0.5 for y in range(len(ablation.rows))],
            [f"{row.bits} · {row.reconstruction}" for row in ablation.rows],
        )
        axes.xaxis.tick_top()
        axes.tick_params(axis="both", labelcolor=INK)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return as_svg(figure, title)


def _draw_cell(axes: Axes, x: int, y: int, result: VariantResult, lowest: float, highest: float) -> None:
    decibel, span = result.scores["psnr"], highest - lowest
    opacity = 0.0 if decibel is None else DARKEST * ((decibel - lowest) / span if span > 0 else 1.0)
    axes.add_patch(
        Rectangle((x + 0.02, y + 0.04), 0.96, 0.92, facecolor=FIRST, alpha=opacity, edgecolor="none")
    )
    axes.add_patch(Rectangle((x + 0.02, y + 0.04), 0.96, 0.92, facecolor="none", edgecolor=LINE, linewidth=1))
    main, note = _words(result)
    axes.text(x + 0.5, y + 0.38, main, ha="center", va="center", color=INK)
    axes.text(x + 0.5, y + 0.74, note, ha="center", va="center", color=INK, fontsize=11)


def _draw_frame(axes: Axes, x: int, y: int) -> None:
    axes.add_patch(
        Rectangle((x + 0.02, y + 0.04), 0.96, 0.92, facecolor="none", edgecolor=SECOND, linewidth=2)
    )
