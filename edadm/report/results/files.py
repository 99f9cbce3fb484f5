"""Files that the report reads; a missing one is told with the command that makes it."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edadm.artifacts import StaleError, date_now, describe, intact, reading, refuse_other
from edadm.artifacts.digest import rows_digest
from edadm.console import say, size
from edadm.errors import EdadmError

SHOWN_IMAGES = 16
READ_AT_MOST = 2 * 10**9  # bytes of images that a report reads to compare them with their scores
AGAIN = "delete it and run `snakemake` again"


def read_json(path: Path, *keys: str) -> dict[str, Any]:
    """A JSON object that has at least `keys`."""
    _require(path)
    with reading(path, AGAIN, what="JSON"):
        found = json.loads(path.read_text())
    if not isinstance(found, dict):
        raise EdadmError(f"{path} holds no JSON object; delete it and run `snakemake` again")
    intact(path)
    if missing := [key for key in keys if key not in found]:
        raise EdadmError(f"{path} lacks {', '.join(missing)}; delete it and run `snakemake` again")
    return found


def table_rows(path: Path, delimiter: str) -> list[dict[str, str]]:
    """A table with a header, a mapping per row."""
    _require(path)
    intact(path)
    with reading(path, AGAIN), open(path, newline="") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


def first_images(files: Sequence[Path]) -> np.ndarray:
    """The first images of all shards, (n, 3, h, w) uint8 with n at most `SHOWN_IMAGES`."""
    parts: list[np.ndarray] = []
    for file in files:
        missing = SHOWN_IMAGES - sum(map(len, parts))
        if missing == 0:
            break
        _require(file)
        intact(file)
        with reading(file, AGAIN, what="images"):
            images = np.load(file, mmap_mode="r", allow_pickle=False)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise EdadmError(
                f"{file} holds {images.dtype} {images.shape}, not uint8 images (n, 3, h, w); delete it and "
                "run `snakemake` again"
            )
        parts.append(np.array(images[:missing]))
    return np.concatenate(parts)


def refuse_scores_of_others(scores: Path, files: Sequence[Path]) -> None:
    """Refuses scores of other images than those that lie beside them.

    Images of more than `READ_AT_MOST` bytes are not read for it, which is said.

    Raises:
        StaleError: names both files.
    """
    told = (describe(scores) or {}).get("made_from", {}).get("inputs", {}).get("samples")
    for file in files:
        _require(file)
    if isinstance(told, str):
        if (total := sum(file.stat().st_size for file in files)) > READ_AT_MOST:
            unread = f"the images beside it ({size(total)})"
            say(f"{scores} was not compared with {unread}; `edadm verify` does that")
            return
        others = files[0] if rows_digest(files) != told else None
    else:  # of edadm 0.2: the digest of each file
        pairs = zip(files, told or (), strict=False)
        others = next(
            (file for file, one in pairs if (describe(file) or {}).get("content", one) != one), None
        )
    if others is not None:
        raise StaleError(f"{scores} has the scores of other images than {others}; {AGAIN}")


def refuse_another_run(path: Path, beside: Path, stage: str) -> None:
    """Refuses a file of a stage's run that left another one of those that it writes together.

    Raises:
        StaleError: names what they differ in.
    """
    if made := (describe(beside) or {}).get("made_from"):
        refuse_other(path, made, stage)


def _require(path: Path) -> None:
    if not path.is_file():
        raise EdadmError(
            f"there is no {path}; make it with `snakemake {path}`, or take its variant out of `runs`"
        )
    date_now(path)
