"""Figures as inline SVG that takes its colours and fonts from the page, so that light and dark are one file."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from html import escape
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from edadm.report.read import CalibrationResult, UnitErrors

# Stand-ins, which no real drawing uses, for the CSS variables of the page's stylesheet.
INK, MUTED, LINE, FIRST, SECOND, THIRD, PAPER, SOFT = (f"#0{i}0{i}0{i}" for i in range(1, 9))
CSS = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    FIRST: "var(--first)",
    SECOND: "var(--second)",
    THIRD: "var(--third)",
    PAPER: "var(--paper)",
    SOFT: "var(--soft)",
}
WIDTH = 1056  # of the page's widest column; one unit of the figures is one CSS pixel there
ROW = 21  # pixels per unit of the network
MOST_LABELS = 25
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "edadm",
    "font.size": 13,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.linewidth": 1,
    "axes.labelsize": 13,
    "axes.titlesize": 13,
    "axes.titlecolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": LINE,
    "grid.linewidth": 1,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 12,
    "figure.facecolor": "none",
    "figure.dpi": 72,
}


def calibration_figure(calibration: CalibrationResult) -> str:
    """Samples per sampler step as bars, with density and variety, where there are any, on an axis of their own."""
    steps = range(len(calibration.counts))
    with matplotlib.rc_context(STYLE):
        figure = _figure(330 if calibration.density else 230)
        axes = figure.subplots()
        axes.bar(steps, calibration.counts, width=0.72, color=SOFT, label="samples")
        axes.set(xlim=(-0.6, len(steps) - 0.4), ylabel="calibration samples", xlabel="sampler step, and below it its timestep")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.yaxis.grid(True)
        stride = math.ceil(len(steps) / MOST_LABELS)
        shown = list(steps)[::stride]
        axes.set_xticks(shown, [f"{step}\n{calibration.timesteps[step]}" for step in shown])
        handles = axes.get_legend_handles_labels()[0]
        if calibration.density and calibration.variety:
            scores = axes.twinx()
            line: dict[str, Any] = {"linewidth": 2, "marker": "o", "markersize": 4.5}
            handles += scores.plot(steps, calibration.density, "-", color=SECOND, label="density (normalised)", **line)
            handles += scores.plot(steps, calibration.variety, "--", color=THIRD, label="variety (normalised)", **line)
            scores.set(ylim=(0, 1.06), ylabel="score", yticks=(0, 0.5, 1))
            scores.spines["left"].set_visible(False)
            figure.legend(handles=handles, loc="outside upper left", ncols=3, handlelength=1.8)
        return _svg(figure, f"Calibration samples per sampler step of {calibration.name}")


def reconstruction_figure(units: Sequence[UnitErrors], title: str) -> str:
    """Per unit, first one on top: its error before and after learning, flipped roundings, and the price of hardening.

    Errors that a logarithmic axis has no place for (zero, not a number) are not drawn.
    """
    rows = range(len(units))
    with matplotlib.rc_context(STYLE):
        figure = _figure(90 + ROW * len(units))
        errors, flips, gaps = figure.subplots(1, 3, sharey=True, width_ratios=(3.2, 0.9, 1.3), gridspec_kw={"wspace": 0.08})
        _draw_errors(errors, units)
        flips.barh(rows, [100 * unit.flipped for unit in units], height=0.5, color=SOFT)
        flips.set_title("flipped, %")
        flips.xaxis.set_major_locator(MaxNLocator(3))
        _draw_gaps(gaps, units)
        for axes in (flips, gaps):
            axes.spines["left"].set_visible(False)
        for axes in (errors, flips, gaps):
            axes.xaxis.grid(True)
        return _svg(figure, title)


def _draw_errors(axes: Axes, units: Sequence[UnitErrors]) -> None:
    rows = range(len(units))
    before, after = ([_positive(getattr(unit, key)) for unit in units] for key in ("before", "after"))
    colors = [SECOND if unit.grew else FIRST for unit in units]
    axes.set_xscale("log")
    axes.hlines(rows, before, after, colors=[SECOND if unit.grew else SOFT for unit in units], linewidth=2)
    axes.scatter(before, rows, s=38, facecolors=PAPER, edgecolors=MUTED, linewidths=1.5, zorder=3)
    axes.scatter(after, rows, s=38, c=colors, zorder=4)
    axes.set_yticks(rows, [unit.name for unit in units])
    axes.set_ylim(len(units) - 0.4, -0.6)
    axes.set_xlabel("unit error (logarithmic)")
    drawn = [error for error in before + after if error > 0]
    if drawn and max(drawn) < 100 * min(drawn):
        # Whole decades, or no power of ten might fall inside the axis.
        axes.set_xlim(0.9 * 10 ** math.floor(math.log10(min(drawn))), 1.1 * 10 ** math.ceil(math.log10(max(drawn))))
    axes.xaxis.set_major_locator(LogLocator(subs=(1,)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="y", labelcolor=INK)
    axes.spines["left"].set_visible(False)
    dot: dict[str, Any] = {"marker": "o", "linestyle": "", "markersize": 6}
    handles = [
        Line2D([], [], **dot, markerfacecolor=PAPER, markeredgecolor=MUTED, markeredgewidth=1.5, label="rounded to nearest"),
        Line2D([], [], **dot, color=FIRST, label="learned"),
    ]
    if SECOND in colors:
        handles.append(Line2D([], [], **dot, color=SECOND, label="learned, and grew"))
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.1, handletextpad=0.1, columnspacing=1.5)


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
        axes.set_xticks([tick for tick in (-10, 0, *(10**power for power in range(1, 9, 2 if high > 1e4 else 1))) if low <= tick <= high])
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}".replace("-", "−") if value else "0"))


def _power(value: float) -> str:
    """A power of ten, as one run of text in the page's font, e.g. "0.01" and "10⁻⁷"."""
    exponent = round(math.log10(value))
    return f"{value:g}" if -4 <= exponent <= 4 else "10" + str(exponent).translate(SUPERSCRIPTS)


def _positive(value: float) -> float:
    return value if math.isfinite(value) and value > 0 else math.nan


def _figure(height: int) -> Figure:
    """An empty figure as wide as the page, `height` pixels high."""
    return Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")


def _svg(figure: Figure, title: str) -> str:
    """The figure as an `<svg>` element without any address, identifier of its own, or fixed colour, font or size."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    body = text[text.index("<defs>") : text.rindex("</svg>")]
    body = re.sub(r'<style type="text/css">.*?</style>', "", body, flags=re.DOTALL)  # would hold for the whole page
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # the same in every figure
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    for color, variable in CSS.items():
        body = body.replace(color, variable)
    body = re.sub(r"\s*\n\s*", "\n", body)
    return f'<svg {box.group()} role="img" aria-label="{escape(title)}">{body}</svg>'
