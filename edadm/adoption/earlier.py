"""Results of edadm 0.1.0 (639e85e): what of them still means the same, and what changed since.

Commands are compared setting by setting.

- convert-checkpoint reads more files, prefers averaged weights and refuses wrong ones: made again beside the
  old one and compared.
- select-calibration gives no sample to a step without a share: made again beside the old one and compared.
- collect-trajectories and generate have other timesteps for some numbers of steps, and prompts are read line
  by line: kept where both are the same.
- generate with integers rounded sums of 8-bit weights twice on processors without VNNI, and no record says
  which it was: made again.
- set-ranges and reconstruct: nothing; kept where the settings are the same.
- reconstruct-part: shares have other names, and `reconstruct` needs none that is finished; not looked at.
- evaluate, benchmark, report, write-prompts and reference-statistics have further scores, checks and facts:
  made again.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from edadm.config.backends import DEFAULT
from edadm.config.files.sources import prompts_file
from edadm.config.rules.timesteps import visited
from edadm.config.schema import SOLVERS, Bits, Calibration, Evaluation, Model, Reconstruction, Sampler
from edadm.errors import EdadmError

REMADE = ("convert-checkpoint", "select-calibration")
KEPT = ("collect-trajectories", "set-ranges", "reconstruct", "generate")
_PRESETS: dict[str, type[BaseModel]] = {
    "model": Model,
    "bits": Bits,
    "calibration": Calibration,
    "reconstruction": Reconstruction,
    "evaluation": Evaluation,
}
_NO_RESULT = {"label", "progress", "threads", "output", "losses", "part"}  # options
_WHERE = {
    "checkpoint",
    "source",
    "layout",
    "ema",
    "jobs",
}  # settings: what a network was made from has been compared by then


class Command(NamedTuple):
    """A command line of a stage."""

    stage: str
    options: dict[str, str]
    files: tuple[str, ...]


def parsed(line: str) -> Command:
    """A rule's shell command; it ends where its output is redirected."""
    words = shlex.split(line)
    words = words[3 : words.index("2>&1") if "2>&1" in words else len(words)]
    options, files, rest = {}, [], words[1:]
    while rest:
        word = rest.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        if word.startswith("--"):
            options[name] = value if equals else rest.pop(0)
        else:
            files.append(word)
    return Command(words[0], options, tuple(files))


def difference(before: Command, now: Command) -> str | None:
    """The reason why a kept stage's command of 639e85e makes something else than today's.

    None if it makes the same.
    """
    if before.stage != now.stage or before.files != now.files:
        return "it was made from other files"
    for name in sorted((before.options.keys() | now.options.keys()) - _NO_RESULT):
        old, new = before.options.get(name), now.options.get(name)
        if name in _PRESETS and old and new:
            if setting := _first_difference(_PRESETS[name], old, new):
                return f"it was made with another {setting}"
        elif old != new:
            return f"it was made with --{name} {old}, now it is {new}"
    return _other_meaning(now)


def _first_difference(kind: type[BaseModel], old: str, new: str) -> str | None:
    try:
        before, now = (_flat(kind.model_validate_json(text).model_dump(mode="json")) for text in (old, new))
    except ValidationError:
        return kind.__name__.lower()
    return next(
        (name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)), None
    )


def _flat(settings: Any, name: str = "") -> dict[str, Any]:
    """Leaves by dotted name, but for those that say only where something is."""
    if not isinstance(settings, dict):
        return {name: settings}
    return {
        leaf: value
        for key, part in settings.items()
        if key not in _WHERE
        for leaf, value in _flat(part, f"{name}.{key}".lstrip(".")).items()
    }


def _other_meaning(command: Command) -> str | None:
    """What changed since for the same settings."""
    if command.stage not in ("collect-trajectories", "generate"):
        return None
    if command.options.get("backend", DEFAULT) != DEFAULT:
        return "its integers may have been rounded otherwise than today's"
    model = Model.model_validate_json(command.options["model"])
    total = model.schedule.timesteps
    if _visited_before(model.sampler, total) != visited(model.sampler, total):
        return "its sampler visits other timesteps now"
    if (
        model.conditioning
        and model.conditioning.prompts
        and not _read_the_same(prompts_file(model.conditioning.prompts))
    ):
        return "its prompts are read otherwise now"
    return None


def _visited_before(sampler: Sampler, total: int) -> Sequence[int | float]:
    """The timesteps of 639e85e."""
    if sampler.spacing == "quadratic" or sampler.method in SOLVERS:
        return visited(sampler, total)
    first = 1 if sampler.spacing == "uniform_from_one" else 0
    return [first + step for step in range(0, total, total // sampler.steps)][: sampler.steps][::-1]


def _read_the_same(prompts: Path) -> bool:
    """Whether the reader of 639e85e found in a file of prompts what today's finds.

    It read captions as today.
    """
    from edadm.config.inputs.prompts import prompts_in

    if prompts.suffix == ".json":
        return True
    try:
        found = prompts_in(prompts).texts
    except EdadmError:
        return False
    text = prompts.read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip()] == found
