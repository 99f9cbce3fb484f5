"""From YAML to a validated configuration: the package's presets below, the user's settings on top."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from pydantic_core import to_jsonable_python

from edadm.config.check import problems
from edadm.config.described.presets import with_descriptions
from edadm.config.inputs.settings import ConfigError, merged, plain, read_settings, resolved
from edadm.config.layout import Variant
from edadm.config.rules.bases import Bases, with_bases, without_inherited
from edadm.config.rules.names import mistakes_in_keys, mistakes_in_names
from edadm.config.rules.wording import nearest, sentences
from edadm.config.schema import Config
from edadm.config.seeds import first_seeds, with_seeds

__all__ = ["ConfigError", "described_runs", "find_preset", "load_config", "load_runs", "validate"]
_PRESETS = Path(__file__).parent / "presets"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # OmegaConf takes ten times as long over the same


@cache
def _package_presets() -> dict[str, Any]:
    """The presets of the package, read once; nobody changes them."""
    found: dict[str, Any] = {}
    for file in sorted(_PRESETS.glob("*.yaml")):
        found = merged(found, yaml.load(file.read_bytes(), Loader=_LOADER))
    return found


def load_config(user: Path | Mapping[str, Any] | None = None) -> Config:
    """The package's presets, changed and extended by the user's YAML file or mapping.

    A preset may name another one of its kind as `base` and then holds only what differs. Runs have a variant
    for every one of their seeds.

    Raises:
        ConfigError: unreadable YAML, an unknown key (the nearest known one is named), a value out of range.
    """
    own = read_settings(user) if isinstance(user, Path) else plain(user or {})
    settings, unresolved = resolved(merged(_package_presets(), own), own)
    if unresolved:
        raise ConfigError("\n".join(unresolved))
    whole, bases, found = with_bases(settings)
    config = _validated(
        with_descriptions(whole), bases, found + mistakes_in_keys(own) + mistakes_in_names(settings)
    )
    return with_seeds(config)


def load_runs(user: Path | Mapping[str, Any]) -> Config:
    """A configuration that says what to run.

    Raises:
        ConfigError: as `load_config`, or it names no run.
    """
    config = load_config(user)
    if not config.runs:
        raise ConfigError(
            "the configuration has no runs; add some under `runs`, or name a file that has with --config"
        )
    return config


def validate(settings: Mapping[str, Any]) -> Config:
    """A mapping as a `Config`.

    Raises:
        ConfigError: one line per problem.
    """
    return _validated(
        dict(settings), {}, mistakes_in_keys(dict(settings)) + mistakes_in_names(dict(settings))
    )


def _validated(settings: dict[str, Any], bases: Bases, found: list[str]) -> Config:
    try:
        config = Config.model_validate(settings)
    except ValidationError as error:
        found += sentences(error.errors(), settings)
    else:
        found += problems(config) if not found else []
    if found:
        raise ConfigError("\n".join(without_inherited(found, bases)))
    return config


def find_preset(kind: str, text: str, config: Path | None = None) -> Any:
    """A preset by name, or a whole preset given as JSON.

    Args:
        kind: `models`, `calibrations`, `bits`, `reconstructions` or `evaluations`.
        text: a name, or a JSON object.
        config: the user's file, with presets of their own.

    Raises:
        ConfigError: no such preset, or settings that do not validate.
    """
    if text.lstrip().startswith("{"):
        try:
            given = json.loads(text)
        except json.JSONDecodeError as error:
            raise ConfigError(f"{kind}: this is not valid JSON: {error}") from None
        return getattr(validate(with_descriptions({kind: {"given": given}})), kind)["given"]
    presets = getattr(load_config(config), kind)
    if text not in presets:
        raise ConfigError(f"there is no preset '{text}' among {kind}{nearest(text, presets)}")
    return presets[text]


def described_runs(config: Config) -> list[dict[str, Any]]:
    """The runs with all settings of the presets they use, as plain JSON values."""
    described = []
    for run in config.runs:
        firsts = first_seeds(run.variants)
        names = [Variant(name).presets for name in firsts if Variant(name).is_quantized]
        presets: dict[str, Any] = {"model": config.models[run.model]}
        for position, kind in enumerate(("calibrations", "bits", "reconstructions")):
            presets[kind] = {
                name: getattr(config, kind)[name] for name in dict.fromkeys(n[position] for n in names)
            }
        evaluation = config.evaluations[run.evaluation]
        described.append(
            to_jsonable_python(
                run.model_dump() | {"evaluation_settings": evaluation, "presets": presets}, by_alias=True
            )
        )
    return described
