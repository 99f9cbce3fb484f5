"""What pydantic finds, in words that name the fix."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel

from edadm.config.schema import Config

_WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "dict_type": "settings",
    "model_type": "settings",
}
_NUMBERS = ("int_type", "float_type")
_SETTINGS = ("dict_type", "model_type")
_SHOWN = 60
_MOST_NAMES = 24
_TYPE = re.compile(r"(literal|tuple|list|dict|constrained-\w+|function-\w+)\b|(bool|int|float|str|none)$")


def sentences(problems: Iterable[Any], settings: Any) -> list[str]:
    """The problems of a pydantic `ValidationError` about `settings`, one sentence for each mistake.

    A mistyped key is not told again as a missing one, nor a bad entry as a list that is too short; what fits
    none of several types is told once. Keys that are no text are told by `edadm.config.rules.names`.
    """
    told = [
        problem for problem in problems if problem["type"] != "invalid_key" and "[key]" not in problem["loc"]
    ]
    told = [
        problem
        for problem in told
        if problem["loc"][:1] == ("runs",) or all(isinstance(key, str) for key in problem["loc"][1:2])
    ]
    grouped: dict[tuple[Any, ...], list[Any]] = {}
    for problem in told:
        grouped.setdefault(_place(problem, settings), []).append(problem)
    mistyped = {
        _close(place, grouped) for place, group in grouped.items() if group[0]["type"] == "extra_forbidden"
    }
    found = []
    for place, group in grouped.items():
        kinds = {problem["type"] for problem in group}
        inside = any(other != place and other[: len(place)] == place for other in grouped)
        if (
            (kinds == {"missing"} and place in mistyped)
            or (kinds == {"too_short"} and inside)
            or (len(group) > 1 and inside)
        ):
            continue
        found.append(_of_several(place, group) if len(group) > 1 else _sentence(place, group[0]))
    return found


def _place(problem: Any, settings: Any) -> tuple[Any, ...]:
    """The place of a problem, without pydantic's names of the types that a setting may have.

    Such as `bool` and `tuple[int, ...]`.
    """
    place: list[Any] = []
    for part in problem["loc"]:
        try:
            settings = settings[part]
        except (KeyError, IndexError, TypeError):
            if problem["type"] != "missing" and isinstance(part, str) and _TYPE.match(part):
                continue
            settings = None
        place.append(part)
    return tuple(place)


def _close(place: tuple[Any, ...], grouped: Iterable[tuple[Any, ...]]) -> tuple[Any, ...] | None:
    """The setting beside `place` that is missing and was probably meant."""
    beside = [other for other in grouped if other != place and other[:-1] == place[:-1]]
    close = difflib.get_close_matches(str(place[-1]), [str(other[-1]) for other in beside], n=1, cutoff=0.5)
    return (*place[:-1], close[0]) if close else None


def _of_several(place: tuple[Any, ...], group: list[Any]) -> str:
    choices = [
        p["ctx"]["expected"] if p["type"] == "literal_error" else _WANTED.get(p["type"], "") for p in group
    ]
    if "" in choices:
        return _sentence(place, next(p for p in group if p["type"] not in _WANTED))
    return (
        f"{'.'.join(map(str, place))}: wants {' or '.join(dict.fromkeys(choices))}, not "
        f"{_shown(group[0]['input'])}"
    )


def _sentence(place: tuple[Any, ...], problem: Any) -> str:
    where, kind, given = ".".join(map(str, place)), problem["type"], problem["input"]
    if kind == "extra_forbidden":
        return f"{where}: there is no such setting{nearest(str(place[-1]), _known_keys(place[:-1]))}"
    if kind == "missing":
        return f"{where}: this setting is required"
    if kind == "value_error":
        return f"{where}: {problem['ctx']['error']}"
    if kind in _WANTED:
        return f"{where}: wants {_WANTED[kind]}, not {_shown(given)}{_way_out(kind, given)}"
    if kind == "literal_error":
        close = _closest(str(given), _words(problem["ctx"]["expected"]), 0.6)
        hint = f"; did you mean '{close}'?" if close else ""
        return f"{where}: input should be {problem['ctx']['expected']} (got {_shown(given)}){hint}"
    if kind == "too_short":
        return f"{where}: this list is empty; write at least one entry, or remove the line"
    return f"{where}: {problem['msg'][0].lower()}{problem['msg'][1:]} (got {_shown(given)})"


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about a word that is unknown: the nearest known one, or all of them."""
    known = list(known)
    close = _closest(word, known, 0.5)
    return f"; did you mean '{close}'?" if close else f"; known are {listed(known)}"


def listed(names: Iterable[str]) -> str:
    """Names in order; of many the first ones and how many more there are."""
    names = sorted(names)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more


def _closest(word: str, known: Iterable[str], cutoff: float) -> str | None:
    """The known word that is nearest, whatever the case of letters."""
    spelled = {other.lower(): other for other in known}
    close = difflib.get_close_matches(word.lower(), list(spelled), n=1, cutoff=cutoff)
    return spelled[close[0]] if close else None


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _way_out(kind: str, given: Any) -> str:
    if given is None:
        return "; write it, or remove the line for the default" + (
            " ({} is all defaults)" if kind in _SETTINGS else ""
        )
    number = _number(given) if kind in _NUMBERS and isinstance(given, str) else None
    if number is not None:
        return f"; write {int(number) if number == number // 1 else number} without quotes"
    if kind == "int_type" and isinstance(given, float) and given == given // 1:
        return f"; write {int(given)}"
    if kind == "string_type" and not isinstance(given, dict | tuple | list):
        return "; put it in quotes"
    if kind == "tuple_type":
        return "; begin each entry with a dash" if isinstance(given, dict) else f"; write [{given}]"
    if kind in _SETTINGS:
        return "; write each as KEY: VALUE, a line each, without dashes"
    return "; write one"


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def _words(expected: str) -> list[str]:
    return expected.replace("' or '", "', '").strip("'").split("', '")


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    """Keys of the schema at a place, e.g. of `Calibration` at ("calibrations", "tdac")."""
    kind: Any = Config
    for part in location:
        kind = _model_in(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            fields = {field.alias or name: field for name, field in kind.model_fields.items()}
            kind = fields[str(part)].annotation
        else:
            kind = get_args(kind)[-1] if not isinstance(part, int) else get_args(kind)[0]
    kind = _model_in(kind)
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return []
    return [field.alias or name for name, field in kind.model_fields.items()]


def _model_in(kind: Any) -> Any:
    """The model of `Model | None`; other types as they are."""
    choices = [
        choice for choice in get_args(kind) if isinstance(choice, type) and issubclass(choice, BaseModel)
    ]
    return choices[0] if choices and type(None) in get_args(kind) else kind
