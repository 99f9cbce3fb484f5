"""Configuration files, read strictly and merged.

References to other settings and to the environment are replaced.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from edadm.errors import EdadmError


class ConfigError(EdadmError):
    """A setting that cannot be used, with a sentence that names the fix."""


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a YAML (or JSON) file, as they stand there.

    Raises:
        ConfigError: absent, a folder, no UTF-8, no valid YAML (a key that stands twice, tabs), empty, or a
            list or text.
    """
    from omegaconf import OmegaConf

    text = _text(path)
    try:
        found = OmegaConf.to_container(OmegaConf.load(io.StringIO(text)), resolve=False)
    except OSError:
        raise ConfigError(
            f"{path} holds a single value; write settings as KEY: VALUE, for instance `runs:`"
        ) from None
    except RecursionError:
        raise ConfigError(
            f"{path} is not valid YAML: it contains itself; write out what `*` stands for"
        ) from None
    except Exception as error:
        raise ConfigError(f"{path} is not valid YAML: {_reason(error, text)}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{path} holds a list; write settings as KEY: VALUE, for instance `runs:`")
    if not found:
        raise ConfigError(f"{path} holds no settings; write some, for instance `runs:`, or name another file")
    return found


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"there is no configuration file {path}; give one with --config") from None
    except IsADirectoryError:
        raise ConfigError(f"{path} is a folder; name the configuration file in it") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read ({error.strerror}); mend its permissions or name another file"
        ) from None


def _reason(error: Exception, source: str) -> str:
    """What a YAML parser says, in one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    where = f"line {mark.line + 1}: " if mark else ""
    text = str(problem or error).strip().splitlines()[0]
    before = "".join(source.split("\n")[mark.line : mark.line + 1])[: mark.column + 1] if mark else ""
    if "\t" in before:
        return f"{where}a tab stands where spaces belong; indent with spaces"
    if text.startswith("found duplicate key"):
        key = text.removeprefix("found duplicate key").strip()
        return f"{where}the key '{key}' stands twice in one place; remove one of them"
    return f"{where}{text}; mend it"


def plain(value: Any) -> Any:
    """Mappings as dicts and sequences as lists, whatever read them."""
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(inner) for inner in value]
    return value


def merged(below: Any, above: Any) -> Any:
    """Mappings key by key, with `above` winning; everything else, lists too, replaced. Neither is changed."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: merged(below[key], value) if key in below else value for key, value in above.items()}


def resolved(settings: dict[str, Any], own: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The settings with every `${...}` of `own` replaced, and a sentence for each that cannot be.

    `own` is the user's part of them.

    `${models.mine.checkpoint}` is another setting, `${oc.env:HOME}` a variable of the environment,
    `${oc.env:HOME,/tmp}` with a value for where it is not set (OmegaConf's notation).
    """
    places = [place for place, text in _texts(own, ()) if "${" in text or text == "???"]
    found = []
    for place in places:
        try:
            value = _resolve(settings, place)
        except EdadmError as error:
            found.append(str(error))
        else:
            settings = merged(settings, _nested(settings, place, value))
    return settings, found


def _resolve(settings: dict[str, Any], place: tuple[Any, ...]) -> Any:
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    where, text = ".".join(map(str, place)), _at(settings, place)
    if text == "???":
        raise ConfigError(f"{where}: '???' is still to be filled in; write a value")
    try:
        node = OmegaConf.create(settings)
        for part in place:
            node = node[part]
    except (OmegaConfBaseException, RecursionError):
        raise ConfigError(
            f"{where}: '{text}' stands for nothing; name a setting as ${{KIND.NAME.KEY}}, a variable of the "
            "environment that is set as "
            "${oc.env:NAME}, or write the value"
        ) from None
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _texts(value: Any, place: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _texts(inner, (*place, key))


def _at(settings: Any, place: tuple[Any, ...]) -> Any:
    for part in place:
        settings = settings[part]
    return settings


def _nested(settings: Any, place: tuple[Any, ...], value: Any) -> Any:
    """What `merged` needs to put a value at a place."""
    if not place:
        return value
    first, *rest = place
    inner = _nested(settings[first], tuple(rest), value)
    return (
        {first: inner} if isinstance(settings, dict) else [*settings[:first], inner, *settings[first + 1 :]]
    )
