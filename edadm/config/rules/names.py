"""Names of presets: they become folders, parts of file names and of command lines on every system."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from edadm.config.backends import backend_names

KINDS = ("models", "calibrations", "bits", "reconstructions", "evaluations")
LONGEST = 100
_READ_AS = {int: "a number", float: "a number", bool: "true or false", type(None): "nothing"}
_ALLOWED = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_.+-]*")
# What lies in a results folder beside presets' folders (config/layout.py); names of backends are taken too.
RESERVED = frozenset(
    {
        "fp32",
        "report",
        "references",
        "times",
        "trajectories",
        "logs",
        "samples",
        "units",
        "base",
    }
)
_FILES = (
    ".json",
    ".safetensors",
    ".zarr",
    ".h5",
    ".npy",
    ".csv",
    ".html",
    ".md",
    ".tsv",
    ".log",
    ".lock",
    ".partial",
    ".progress",
)


def mistakes_in_names(settings: dict[str, Any]) -> list[str]:
    """One sentence per name of a preset that cannot be used."""
    found: list[str] = []
    for kind in KINDS:
        presets = settings.get(kind)
        names = [name for name in presets if isinstance(name, str)] if isinstance(presets, dict) else []
        found += [f"{kind}: {sentence}" for name in names for sentence in _mistake(name)]
        found += [f"{kind}: {sentence}" for sentence in _same_but_for_case(names)]
    return found


def mistakes_in_keys(settings: dict[str, Any]) -> list[str]:
    """One sentence per key that YAML read as a number or a truth value, at any depth."""
    found = [sentence for key, value in settings.items() for sentence in _keys(value, str(key))]
    odd = [key for key in settings if not isinstance(key, str)]
    return found + [
        f"{key!r}: a setting's name is text; remove this line or put its name in quotes" for key in odd
    ]


def _keys(value: Any, where: str) -> list[str]:
    if isinstance(value, list):
        return [
            sentence for index, inner in enumerate(value) for sentence in _keys(inner, f"{where}.{index}")
        ]
    if not isinstance(value, dict):
        return []
    found = [
        f"{where}: the name {str(key).lower()} is read as {_READ_AS.get(type(key), 'something else')}; put "
        "it in quotes"
        for key in value
        if not isinstance(key, str)
    ]
    return found + [sentence for key, inner in value.items() for sentence in _keys(inner, f"{where}.{key}")]


def _mistake(name: str) -> list[str]:
    shown = f"the name {name!r}"
    if not _ALLOWED.fullmatch(name) or ".." in name:
        return [
            f"{shown} cannot be that of a folder everywhere; use letters, digits, and _ . + - between them "
            "(no . or - first, no two dots in a row)"
        ]
    if len(name) > LONGEST:
        return [f"the name '{name[:20]}...' has {len(name)} characters; use at most {LONGEST}"]
    if name.lower() in RESERVED.union(backend_names()) or name.lower().endswith(_FILES):
        return [f"{shown} is taken by files that the stages write; choose another"]
    return []


def _same_but_for_case(names: Iterable[str]) -> list[str]:
    seen: dict[str, str] = {}
    found = []
    for name in names:
        other = seen.setdefault(name.lower(), name)
        if other != name:
            found.append(
                f"'{other}' and '{name}' differ in case only, which some file systems do not tell apart; "
                "rename one"
            )
    return found
