"""Settings as artifacts state them: those that shaped them, without paths."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from itertools import combinations
from typing import Any

OF_NOISE = (
    "images",
    "shards",
    "batch_size",
    "seed",
    "precision",
    "compiled",
)  # of an evaluation, of its images
_PLACES = {"prompts", "checkpoint", "image_folder"}  # where an input lies is no setting; its digest counts

_BY_PATTERN = ("layers", "smoothing_layers", "unit_iterations")  # of which the last that fits decides
_WILD = frozenset("*?[")


def settings_of(preset: Any, *fields: str) -> dict[str, Any]:
    """Settings of a preset, without paths.

    Exceptions by name pattern are compared in any order; where their order decides, it stands beside them.

    Args:
        fields: those that the stage depends on; all if none is given.
    """
    dump: dict[str, Any] = preset.model_dump(mode="json", by_alias=True, include=set(fields) or None)
    dump |= {
        f"{name}_in_order": [*dump[name]] for name in _BY_PATTERN if _order_decides(dump.get(name) or {})
    }
    return {
        name: {key: part for key, part in value.items() if key not in _PLACES}
        if isinstance(value, dict)
        else value
        for name, value in dump.items()
    }


def _order_decides(exceptions: Mapping[str, Any]) -> bool:
    """Whether some name may fit two patterns that say other things; of two with wildcards one may."""
    return any(
        said != other
        and (fnmatchcase(one, two) or fnmatchcase(two, one) or (_WILD & set(one) and _WILD & set(two)))
        for (one, said), (two, other) in combinations(exceptions.items(), 2)
    )
