"""Arguments by file: Linux takes words of up to 128 KiB, and Snakemake gives a command to a shell as one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from edadm.errors import EdadmError


def in_file(arguments: Sequence[str], folder: Path) -> str:
    """Arguments as one, `@FILE`: a JSON list, named by what it holds and written if it is not there.

    Args:
        arguments: of a command, however many and long.
        folder: where the file is put.
    """
    from edadm.artifacts.whole import writing

    text = json.dumps(list(arguments), ensure_ascii=False)
    file = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    if not (file.is_file() and file.read_bytes() == text.encode()):
        with writing(file) as partial:
            partial.write_text(text, encoding="utf-8")
    return f"@{file}"


def expanded(arguments: Sequence[str]) -> list[str]:
    """Arguments with those in the place of `@FILE.json` that the file holds.

    Raises:
        EdadmError: there is no such file, or it holds something else.
    """
    found: list[str] = []
    for argument in arguments:
        found += _held(Path(argument[1:])) if _names_a_file(argument) else [argument]
    return found


def _names_a_file(argument: str) -> bool:
    """Whether an argument is such a file: values, as of folders, may begin with @, too."""
    return argument.startswith("@") and argument.endswith(".json")


def _held(file: Path) -> list[str]:
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not JSON"
        raise EdadmError(f"the arguments in {file} cannot be read: {reason}; give them without @") from None
    if not isinstance(held, list) or not all(isinstance(each, str) for each in held):
        raise EdadmError(f"{file} should hold arguments as a JSON list of strings; give them without @")
    return held
