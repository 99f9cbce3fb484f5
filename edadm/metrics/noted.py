"""Numbers that all variants of a run share, computed once and left where the workflow keeps its notes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edadm.artifacts.digest import sha256_of
from edadm.config.files.sources import file_sha256
from edadm.config.fingerprint import PACKAGE
from edadm.config.fingerprint.content import write_note
from edadm.metrics.circumstances import circumstances

_CODE = ("floor", "frechet")  # whose change makes them again


def noted(what: Sequence[Any], compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A result that depends on nothing but `what`, this package's code and versions of others.

    Where no workflow keeps notes it is computed.
    """
    if not (notes := os.environ.get("EDADM_NOTES")):
        return compute()
    code = [file_sha256(PACKAGE / "metrics/scores" / f"{name}.py") for name in _CODE]
    note = Path(notes) / "scores" / f"{sha256_of([*what, code, circumstances('cpu')])}.json"
    try:
        found = json.loads(note.read_text())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        found = compute()
        write_note(note, found)
    return found
