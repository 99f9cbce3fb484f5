"""Safetensors and JSON artifacts, written and read with what they say of themselves."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edadm.artifacts.digest import canonical, sha256_of, tensors_digest
from edadm.artifacts.errors import DamagedError
from edadm.artifacts.failures import reading
from edadm.artifacts.metadata import KEY, Facts, intact, stamped
from edadm.artifacts.whole import writing
from edadm.errors import EdadmError


def save_tensors(partial: Path, tensors: Mapping[str, Any], known: Facts) -> None:
    """Writes torch tensors with their facts.

    Args:
        partial: from `writing` or `Work.publishing`.
    """
    from safetensors.torch import save_file

    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    complete = stamped(known, tensors_digest(ready))
    save_file(ready, partial, {KEY: canonical(complete)})


def read_tensors(
    path: Path, stage: str, needed: Sequence[str] = (), device: Any = "cpu", kind: str | None = None
) -> dict[str, Any]:
    """The tensors of a safetensors artifact by name, after its digest was compared with what it says.

    Args:
        path: of the artifact.
        stage: the command that makes it, for whoever must make it again.
        needed: names that it must hold.
        device: where to put the tensors.
        kind: what it must be, if it says what it is.

    Raises:
        DamagedError: damaged, absent, of another kind, or without one of the needed tensors.
    """
    from safetensors.torch import load_file

    intact(path, kind, stage)
    with reading(path, f"remove it, and make it again with `edadm {stage}`"):
        tensors: dict[str, Any] = load_file(path, device=str(device))
    if missing := [name for name in needed if name not in tensors]:
        raise DamagedError(
            f"{path} has no tensor '{missing[0]}', so it is not from `edadm {stage}`; name the file that is"
        )
    return tensors


def writing_json(path: Path, content: Any, known: Facts | None = None) -> None:
    """Writes JSON, indented, keys in the order given.

    Args:
        known: facts of an object, which it gets as its last key.
    """
    with writing(path) as partial:
        partial.write_text(as_json(content, known))


def as_json(content: Any, known: Facts | None = None) -> str:
    """The text of a JSON artifact, of an object with its facts.

    Raises:
        EdadmError: a number in it is not finite, which JSON has no word for.
    """
    try:
        if known is not None:
            plain = json.loads(json.dumps(content, allow_nan=False))
            content = {**content, KEY: stamped(known, sha256_of(plain))}
        return json.dumps(content, indent=1, allow_nan=False) + "\n"
    except ValueError:
        where = next(_not_finite(content, ""), "a number")
        raise EdadmError(
            f"{where} is not finite, which JSON cannot hold; look at what it was computed from"
        ) from None


def _not_finite(value: Any, where: str) -> Iterator[str]:
    """Places of numbers that are not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{where or 'a number'} ({value})"
    if isinstance(value, Mapping | list | tuple):
        for key, inner in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _not_finite(inner, f"{where}.{key}" if where else str(key))
