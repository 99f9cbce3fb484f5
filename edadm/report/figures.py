"""Figures of calibration and reconstruction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from edadm.report.drawing import FIRST, INK, MUTED, PAPER, SECOND, SOFT, STYLE, THIRD, as_svg, empty_figure
from edadm.report.results.records import CalibrationResult, UnitErrors

ROW = 21  # pixels per unit of the network
MOST_LABELS = 25
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def calibration_figure(calibration: CalibrationResult) -> str:
    """Samples per sampler step as bars, with density and variety on an axis of their own.

    The latter where there are any.
    """
    steps = range(len(calibration.counts))
    with matplotlib.rc_context(STYLE):
        figure = empty_figure(330 if calibration.density else 230)
        axes = figure.subplots()
        axes.bar(steps, calibration.counts, width=0.72, color=SOFT, label="samples")
        axes.set(
            xlim=(-0.6, len(steps) - 0.4),
            ylabel="calibration samples",
            xlabel="sampler step, and below it its timestep",
        )
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.grid(True)
        stride = math.ceil(len(steps) / MOST_LABELS)
        shown = list(steps)[::stride]
        axes.set_xticks(shown, [f"{step}\n{calibration.timesteps[step]}" for step in shown])
        handles = axes.get_legend_handles_labels()[0]
        if calibration.density and calibration.variety:
            scores = axes.twinx()
            line: dict[str, Any] = {"linewidth": 2, "marker": "o", "markersize": 4.5}
            handles += scores.plot(
                steps, calibration.density, "-", color=SECOND, label="density (normalised)", **line
            )
            handles += scores.plot(
                steps, calibration.variety, "--", color=THIRD, label="variety (normalised)", **line
            )
            scores.set(ylim=(0, 1.06), ylabel="score", yticks=(0, 0.5, 1))
            scores.spines["left"].set_visible(False)
            figure.legend(handles=handles, loc="outside upper left", ncols=3, handlelength=1.8)
        return as_svg(figure, f"Calibration samples per sampler step of {calibration.name}")


def selection_figure(calibrations: Sequence[CalibrationResult]) -> str:
    """Samples per sampler step of every selector, side by side on the same axes."""
    columns = min(4, len(calibrations))
    rows = math.ceil(len(calibrations) / columns)
    most = max(max(calibration.counts) for calibration in calibrations)
    with matplotlib.rc_context(STYLE):
        figure = empty_figure(40 + 150 * rows)
        grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
        for axes, calibration in zip(grid, calibrations, strict=False):
            steps = range(len(calibration.counts))
            axes.bar(steps, calibration.counts, width=0.8, color=SOFT)
            axes.set_title(calibration.name, color=INK, loc="left")
            axes.set(xlim=(-0.6, len(steps) - 0.4), ylim=(0, 1.05 * most))
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
            axes.yaxis.grid(True)
        for axes in grid[len(calibrations) :]:
            axes.set_visible(False)
        figure.supxlabel("sampler step", color=MUTED, fontsize=13)
        figure.supylabel("samples", color=MUTED, fontsize=13)
        return as_svg(figure, "Calibration samples per sampler step of every selector")


def reconstruction_figure(units: Sequence[UnitErrors], title: str) -> str:
    """Errors per unit before and after learning, flipped roundings, and the price of hardening.

    The first unit stands on top.

    Where there are held-out rows, the error after learning on them is a diamond.

    Errors that a logarithmic axis has no place for (zero, not a number) are not drawn.
    """
    rows = range(len(units))
    with matplotlib.rc_context(STYLE):
        figure = empty_figure(90 + ROW * len(units))
        errors, flips, gaps = figure.subplots(
            1, 3, sharey=True, width_ratios=(3.2, 0.9, 1.3), gridspec_kw={"wspace": 0.08}
        )
        _draw_errors(errors, units)
        flips.barh(rows, [100 * unit.flipped for unit in units], height=0.5, color=SOFT)
        flips.set_title("flipped, %")
        flips.xaxis.set_major_locator(MaxNLocator(3))
        _draw_gaps(gaps, units)
        for axes in (flips, gaps):
            axes.spines["left"].set_visible(False)
        for axes in (errors, flips, gaps):
            axes.xaxis.grid(True)
        return as_svg(figure, title)


def _draw_errors(axes: Axes, units: Sequence[UnitErrors]) -> None:
    rows = range(len(units))
    before, after = ([_positive(getattr(unit, key)) for unit in units] for key in ("before", "after"))
    colors = [SECOND if unit.grew else FIRST for unit in units]
    axes.set_xscale("log")
    axes.hlines(rows, before, after, colors=[SECOND if unit.grew else SOFT for unit in units], linewidth=2)
    axes.scatter(before, rows, s=38, facecolors=PAPER, edgecolors=MUTED, linewidths=1.5, zorder=3)
    axes.scatter(after, rows, s=38, c=colors, zorder=4)
    held_out = [_positive(unit.held_out_after) for unit in units]
    axes.scatter(
        held_out, rows, s=30, marker="D", facecolors="none", edgecolors=THIRD, linewidths=1.5, zorder=5
    )
    axes.set_yticks(rows, [unit.name for unit in units])
    axes.set_ylim(len(units) - 0.4, -0.6)
    axes.set_xlabel("unit error (logarithmic)")
    drawn = [error for error in before + after + held_out if error > 0]
    if drawn and max(drawn) < 100 * min(drawn):
        # Whole decades, or no power of ten might fall inside the axis.
        axes.set_xlim(
            0.9 * 10 ** math.floor(math.log10(min(drawn))), 1.1 * 10 ** math.ceil(math.log10(max(drawn)))
        )
    axes.xaxis.set_major_locator(LogLocator(subs=(1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", labelcolor=INK)
    axes.spines["left"].set_visible(False)
    dot: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 6}
    handles = [
        Line2D(
            [],
            [],
            **dot,
            markerfacecolor=PAPER,
            markeredgecolor=MUTED,
            markeredgewidth=1.5,
            label="rounded to nearest",
        ),
        Line2D([], [], **dot, color=FIRST, label="learned"),
    ]
    if SECOND in colors:
        handles.append(Line2D([], [], **dot, color=SECOND, label="learned, and grew"))
    if any(error > 0 for error in held_out):
        diamond: dict[str, Any] = dot | {"marker": "D", "markersize": 5}
        handles.append(
            Line2D(
                [],
                [],
                **diamond,
                markerfacecolor="none",
                markeredgecolor=THIRD,
                markeredgewidth=1.5,
                label="learned, held out",
            )
        )
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=4,
        borderaxespad=0.1,
        handletextpad=0.1,
        columnspacing=1.5,
    )


def _draw_gaps(axes: Axes, units: Sequence[UnitErrors]) -> None:
    """Change of the error by hardening, in percent; logarithmic beyond 10 % where some unit exceeds 50 %."""
    rows = range(len(units))
    changes = [100 * (unit.hardening - 1) if math.isfinite(unit.hardening) else math.nan for unit in units]
    axes.axvline(0, color=MUTED, linewidth=1)
    axes.hlines(rows, 0, changes, color=MUTED, linewidth=1.5)
    axes.plot(changes, rows, "o", color=FIRST, markersize=5.5)
    axes.set_title("soft to hard, %")
    axes.xaxis.set_major_locator(MaxNLocator(3))
    if any(abs(change) > 50 for change in changes):
        axes.set_xscale("symlog", linthresh=10)
        low, high = axes.get_xlim()
        axes.set_xticks(
            [
                tick
                for tick in (-10, 0, *(10**power for power in range(1, 9, 2 if high > 1e4 else 1)))
                if low <= tick <= high
            ]
        )
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(
        FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0")
    )


def _power(value: float) -> str:
    """A power of ten, as one run of text in the page's font, e.g. "0.01" and "10⁻⁷"."""
    exponent = round(math.log10(value))
    return f"{value:g}" if -4 <= exponent <= 4 else "10" + str(exponent).translate(SUPERSCRIPTS)


def _positive(value: float) -> float:
    return value if math.isfinite(value) and value > 0 else math.nan
