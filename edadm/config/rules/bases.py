"""Presets that build on others of their kind."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from edadm.config.inputs.settings import merged
from edadm.config.rules.names import KINDS
from edadm.config.rules.wording import nearest

Bases = dict[tuple[str, str], str]


def with_bases(settings: dict[str, Any]) -> tuple[dict[str, Any], Bases, list[str]]:
    """Presets with what they inherit, who inherits from whom, and a sentence per base that cannot be.

    A preset without a usable base is left out.
    """
    whole, found = dict(settings), []
    bases: Bases = {}
    for kind in KINDS:
        presets = settings.get(kind)
        if not isinstance(presets, dict):
            continue
        texts = {
            name: preset
            for name, preset in presets.items()
            if isinstance(name, str) and isinstance(preset, dict)
        }
        own = {name: preset["base"] for name, preset in texts.items() if "base" in preset}
        good = {name: base for name, base in own.items() if isinstance(base, str) and base in presets}
        found += [_absent(kind, name, base, settings) for name, base in own.items() if name not in good]
        lost, circles = _in_circles(good)
        found += [
            f"{kind}.{circle}: its bases form a circle; break it by removing one `base`" for circle in circles
        ]
        known = {name: base for name, base in good.items() if name not in lost}
        left = lost | (own.keys() - good.keys())
        left |= {name for name in known if any(base in left for base in _line(name, known))}
        whole[kind] = {
            name: _inherited(name, presets, known) if name in known else presets[name]
            for name in presets
            if name not in left
        }
        bases |= {(kind, name): base for name, base in known.items()}
    return whole, bases, found


def without_inherited(sentences: Iterable[str], bases: Bases) -> list[str]:
    """The sentences without those that a preset has from its base, whose own line says it; none twice."""
    every = dict.fromkeys(sentences)

    def is_inherited(sentence: str) -> bool:
        for (kind, name), base in bases.items():
            place = f"{kind}.{name}"
            if (
                sentence.startswith((f"{place}.", f"{place}:"))
                and f"{kind}.{base}{sentence[len(place) :]}" in every
            ):
                return True
        return False

    return [sentence for sentence in every if not is_inherited(sentence)]


def _absent(kind: str, name: str, base: Any, settings: dict[str, Any]) -> str:
    where = f"{kind}.{name}"
    if not isinstance(base, str):
        return f"{where}.base: wants the name of one preset of {kind}, not {base!r}; write it"
    elsewhere = [other for other in KINDS if other != kind and base in (settings.get(other) or ())]
    if elsewhere:
        return (
            f"{where}: '{base}' is a preset of {elsewhere[0]}, not of {kind}; build on one of the same kind"
        )
    return f"{where}: there is no preset '{base}' to build on{nearest(base, settings[kind])}"


def _line(name: str, bases: dict[str, str]) -> list[str]:
    """A preset and its bases, the nearest first; of one in a circle until it closes."""
    line = [name]
    while (base := bases.get(line[-1])) and base not in line:
        line.append(base)
    return line


def _in_circles(bases: dict[str, str]) -> tuple[set[str], list[str]]:
    """Presets whose bases never come to an end, and one name per circle."""
    lost = {name for name in bases if _line(name, bases)[-1] in bases}
    circles = {min(_line(name, bases)) for name in lost if name in _line(bases[name], bases)}
    return lost, sorted(circles)


def _inherited(name: str, presets: dict[Any, Any], bases: dict[str, str]) -> Any:
    preset = presets[name]
    if name not in bases:
        return preset
    own = {key: value for key, value in preset.items() if key != "base"}
    return merged(_inherited(bases[name], presets, bases), own)
