"""What pydantic finds, in words that name the fix."""

from __future__ import annotations

import difflib
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


def sentence(problem: Any) -> str:
    """A problem of a pydantic `ValidationError` in one sentence."""
    where, kind, given = ".".join(map(str, problem["loc"])), problem["type"], problem["input"]
    if kind == "extra_forbidden":
        return f"{where}: there is no such setting{nearest(str(problem['loc'][-1]), _known_keys(problem['loc'][:-1]))}"
    if kind == "missing":
        return f"{where}: this setting is required"
    if kind == "value_error":
        return f"{where}: {problem['ctx']['error']}"
    if kind in _WANTED:
        return f"{where}: wants {_WANTED[kind]}, not {_shown(given)}{_way_out(kind, given)}"
    if kind == "literal_error":
        close = difflib.get_close_matches(str(given), [str(word) for word in _words(problem["ctx"]["expected"])], n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        return f"{where}: input should be {problem['ctx']['expected']} (got {_shown(given)}){hint}"
    if kind == "too_short":
        return f"{where}: this list is empty; write at least one entry, or remove the line"
    return f"{where}: {problem['msg'][0].lower()}{problem['msg'][1:]} (got {_shown(given)})"


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about a word that is unknown: the nearest known one, or all of them."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; known are {', '.join(sorted(known))}"


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _way_out(kind: str, given: Any) -> str:
    if given is None:
        return "; write it, or remove the line for the default" + (" ({} is all defaults)" if kind in _SETTINGS else "")
    if kind in _NUMBERS and isinstance(given, str) and _number(given) is not None:
        return f"; write {_number(given)} without quotes"
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
    choices = [choice for choice in get_args(kind) if isinstance(choice, type) and issubclass(choice, BaseModel)]
    return choices[0] if choices and type(None) in get_args(kind) else kind
