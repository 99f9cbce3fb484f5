"""Figures as inline SVG that takes its colours and fonts from the page.

So light and dark are one file.
"""

from __future__ import annotations

import io
import re
from html import escape
from typing import Any

from matplotlib.figure import Figure

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


def empty_figure(height: int) -> Figure:
    """An empty figure as wide as the page, `height` pixels high."""
    return Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")


def as_svg(figure: Figure, title: str) -> str:
    """The figure as an `<svg>` element without any address, identifier, fixed colour, font or size."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    body = text[text.index("<defs>") : text.rindex("</svg>")]
    body = re.sub(
        r'<style type="text/css">.*?</style>', "", body, flags=re.DOTALL
    )  # would hold for the whole page
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # the same in every figure
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", body)
    body = re.sub(r"font-family: [^;\"]*;? ?", "", body)
    for color, variable in CSS.items():
        body = body.replace(color, variable)
    body = re.sub(r"\s*\n\s*", "\n", body)
    return f'<svg {box.group()} role="img" aria-label="{escape(title)}">{body}</svg>'
