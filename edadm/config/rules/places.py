"""Places where a run reads and writes: the results folder, and every file it needs.

They are looked for before anything starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from edadm.config.files.scoring import Scoring, scoring_of
from edadm.config.files.sources import locate_images, locate_parts, locate_prompts
from edadm.config.inputs.settings import ConfigError
from edadm.config.schema import Config
from edadm.errors import EdadmError

_PACKAGE = Path(__file__).parents[2]
_ODD = set("{}*?[]\"'`$\\\n\r\t\0")
_Found = TypeVar("_Found")


@dataclass(frozen=True)
class Inputs:
    """The files that runs need, by model or evaluation; the sources of weights also by part."""

    sources: dict[str, dict[str, Path]]
    prompts: dict[str, Path | None]
    images: dict[str, list[Path]]
    scoring: dict[str, Scoring]


def find_inputs(config: Config) -> Inputs:
    """Every file that the runs need, and a results folder that can be one.

    Raises:
        ConfigError: one line per file that is absent or of another kind.
    """
    mistakes = list(mistakes_in_results(config.results))
    models = {run.model: config.models[run.model] for run in config.runs}

    def all_of(names: dict[str, None], find: Callable[[str], _Found]) -> dict[str, _Found]:
        found = {}
        for name in names:
            try:
                found[name] = find(name)
            except EdadmError as error:
                mistakes.append(str(error))
        return found

    sources = all_of(dict.fromkeys(models), lambda name: locate_parts(name, models[name]))
    prompts = all_of(dict.fromkeys(models), lambda name: locate_prompts(name, models[name]))
    images = all_of(dict.fromkeys(models), lambda name: locate_images(name, models[name]))
    evaluations = dict.fromkeys(run.evaluation for run in config.runs)
    scoring = all_of(evaluations, lambda name: scoring_of(name, config))
    if mistakes:
        raise ConfigError("\n".join(dict.fromkeys(mistakes)))
    return Inputs(sources, prompts, images, scoring)


def mistakes_in_results(results: str) -> Iterator[str]:
    """Why a folder cannot hold results; none if it can."""
    if not results.strip():
        yield "results: no folder is named; write one, for instance results: results"
        return
    if odd := sorted(_ODD & set(results)):
        yield (
            f"results: {results!r} has the character {odd[0]!r} in it, which shells and patterns read "
            "otherwise; name another folder"
        )
        return
    if results.startswith(("~", "-")):
        yield (
            f"results: {results!r} begins with {results[0]!r}; write the folder's path in full, or "
            f"${{oc.env:HOME}}/..."
        )
        return
    folder, here = Path(results).resolve(), Path.cwd().resolve()
    if folder in (here, *here.parents, Path.home().resolve()):
        yield (
            f"results: {results!r} is a folder with other things in it; name one of its own, for instance "
            f"{results.rstrip('/')}/results"
        )
    elif folder.is_relative_to(_PACKAGE):
        yield f"results: {results!r} lies inside the installed package; name a folder outside it"
    else:
        yield from _not_writable(results, Path(results).absolute())


def _not_writable(results: str, folder: Path) -> Iterator[str]:
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not there.is_dir():
        yield f"results: {there} is no folder; remove it, or name another"
    elif not os.access(there, os.W_OK | os.X_OK):
        yield f"results: {there} is not writable; name a folder {results!r} that you may write to"
