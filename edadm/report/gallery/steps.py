"""Errors of quantized networks' predictions by timestep, where `edadm benchmark errors` measured them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from edadm.artifacts import intact, reading
from edadm.config.backends import DEFAULT
from edadm.console import say
from edadm.report.drawing import FIRST, MUTED, SECOND, STYLE, THIRD, as_svg, empty_figure
from edadm.report.figures import MOST_LABELS
from edadm.report.results.files import AGAIN, read_json

_LOOKS = [
    (color, line, mark)
    for line, mark in (("-", "o"), ("--", "s"), (":", "^"))
    for color in (FIRST, SECOND, THIRD, MUTED)
]


@dataclass(frozen=True)
class StepErrors:
    """The mean squared error of a network's predictions at every timestep, as shares of their mean square."""

    label: str
    timesteps: list[int]
    errors: list[float]
    states: int


def read_step_errors(path: Path, weights: Path, label: str) -> list[StepErrors]:
    """The errors that a file holds of a checkpoint, by backend.

    None, which is said, if it is of another checkpoint: no rule makes this file again.

    Raises:
        EdadmError: it is damaged.
    """
    found = read_json(path, "rows", "inputs", "steps")
    with reading(path, AGAIN, what="errors by timestep"):
        if found["inputs"].get("quantized") != intact(weights):
            say(f"{path} is of another checkpoint than {weights} and is left out; measure it again")
            return []
        timesteps = [int(step["timestep"]) for step in found["steps"]]
        backends = list(found["steps"][0]["errors"])
        return [
            StepErrors(
                label if backend == DEFAULT else f"{label}, {backend}",
                timesteps,
                [float(step["errors"][backend]["error"]) for step in found["steps"]],
                int(found["rows"]),
            )
            for backend in backends
        ]


def step_figure(found: Sequence[StepErrors]) -> str:
    """A line per network: its error at every step, from noise on the left to the image on the right."""
    with matplotlib.rc_context(STYLE):
        figure = empty_figure(360)
        axes = figure.subplots()
        for one, (color, line, mark) in zip(found, _LOOKS * len(found), strict=False):
            axes.plot(
                range(len(one.errors)),
                [error if error > 0 else float("nan") for error in one.errors],
                line,
                color=color,
                marker=mark,
                markersize=4.5,
                linewidth=2,
                label=one.label,
            )
        axes.set_yscale("log")
        axes.set(ylabel="error, % of the prediction", xlabel="sampler step, and below it its timestep")
        axes.yaxis.grid(True)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        timesteps = found[0].timesteps
        shown = range(0, len(timesteps), -(-len(timesteps) // MOST_LABELS))
        axes.set_xticks(list(shown), [f"{step}\n{timesteps[step]}" for step in shown])
        figure.legend(loc="outside upper left", ncols=3, handlelength=2.4)
        return as_svg(figure, "Error of predictions at every sampler step")


def step_table(found: Sequence[StepErrors]) -> list[Mapping[str, Any]]:
    """Per step its timestep and the error of every network in percent; formatted."""
    return [
        {"step": step, "timestep": timestep, "cells": [f"{100 * one.errors[step]:.3g}" for one in found]}
        for step, timestep in enumerate(found[0].timesteps)
    ]
