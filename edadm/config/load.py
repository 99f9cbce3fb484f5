"""From YAML to a validated configuration: the package's presets below, the user's settings on top."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from omegaconf import OmegaConf
from pydantic import BaseModel, ValidationError
from pydantic_core import to_jsonable_python

from edadm.config.check import problems
from edadm.config.described.folder import describe_folder, has_description
from edadm.config.layout import Variant
from edadm.config.schema import Config
from edadm.errors import EdadmError

_PRESETS = Path(__file__).parent / "presets"


class ConfigError(EdadmError):
    """A setting that cannot be used, with a sentence that names the fix."""


def load_config(user: Path | Mapping[str, Any] | None = None) -> Config:
    """The package's presets, changed and extended by the user's YAML file or mapping.

    A preset may name another one of its kind as `base` and then holds only what differs.

    Raises:
        ConfigError: unreadable YAML, an unknown key (the nearest known one is named), a value out of range.
    """
    merged = OmegaConf.create({})
    for file in sorted(_PRESETS.glob("*.yaml")):
        merged = OmegaConf.merge(merged, OmegaConf.load(file))
    if isinstance(user, Path):
        try:
            user = OmegaConf.load(user)
        except FileNotFoundError:
            raise ConfigError(f"there is no configuration file {user}; give one with --config") from None
        except Exception as error:
            raise ConfigError(f"{user} is not valid YAML: {error}") from None
    merged = OmegaConf.merge(merged, user or {})
    settings = OmegaConf.to_container(merged, resolve=True)
    assert isinstance(settings, dict)
    return validate(_with_descriptions(_with_bases(settings)))


def validate(settings: Mapping[str, Any]) -> Config:
    """A mapping as a `Config`.

    Raises:
        ConfigError: one line per problem.
    """
    try:
        config = Config.model_validate(settings)
    except ValidationError as error:
        raise ConfigError("\n".join(_sentence(problem) for problem in error.errors())) from None
    if found := problems(config):
        raise ConfigError("\n".join(found))
    return config


def _with_bases(settings: dict[str, Any]) -> dict[str, Any]:
    resolved = dict(settings)
    for kind in ("models", "calibrations", "bits", "reconstructions", "evaluations"):
        presets = settings.get(kind) or {}
        if isinstance(presets, dict):
            resolved[kind] = {name: _inherit(kind, name, presets, ()) for name in presets}
    return resolved


def _with_descriptions(settings: dict[str, Any]) -> dict[str, Any]:
    """Models without an architecture, whose checkpoint is a diffusers folder, get what the folder says of itself below their own."""
    models = settings.get("models")
    if not isinstance(models, dict):
        return settings
    return settings | {"models": {name: _described(model) for name, model in models.items()}}


def _described(model: Any) -> Any:
    if not isinstance(model, dict) or model.get("architecture") or not isinstance(model.get("checkpoint"), str):
        return model
    path = Path(model["checkpoint"]).expanduser()
    if not has_description(path):
        return model
    below = describe_folder(path).settings
    return OmegaConf.to_container(OmegaConf.merge(OmegaConf.create(below), OmegaConf.create(model)))


def _inherit(kind: str, name: str, presets: dict[str, Any], seen: tuple[str, ...]) -> Any:
    preset = presets[name]
    if not isinstance(preset, dict) or "base" not in preset:
        return preset
    base = preset["base"]
    if base in (*seen, name):
        raise ConfigError(f"{kind}.{name}: its bases form a circle; break it by removing one `base`")
    if base not in presets:
        raise ConfigError(f"{kind}.{name}: there is no preset '{base}' to build on{_nearest(base, presets)}")
    own = {key: value for key, value in preset.items() if key != "base"}
    below = _inherit(kind, base, presets, (*seen, name))
    return OmegaConf.to_container(OmegaConf.merge(OmegaConf.create(below), OmegaConf.create(own)))


def _sentence(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{where}: there is no such setting{_nearest(str(problem['loc'][-1]), _known_keys(problem['loc'][:-1]))}"
    if problem["type"] == "missing":
        return f"{where}: this setting is required"
    return f"{where}: {problem['msg'][0].lower()}{problem['msg'][1:]} (got {problem['input']!r})"


def _nearest(word: str, known: Any) -> str:
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; known are {', '.join(sorted(known))}"


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    """Keys of the schema at a place, e.g. of `Calibration` at ("calibrations", "tdac")."""
    kind: Any = Config
    for part in location:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            fields = {field.alias or name: field for name, field in kind.model_fields.items()}
            kind = fields[str(part)].annotation
        else:
            kind = get_args(kind)[-1] if not isinstance(part, int) else get_args(kind)[0]
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return []
    return [field.alias or name for name, field in kind.model_fields.items()]


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
        return getattr(validate(_with_descriptions({kind: {"given": given}})), kind)["given"]
    presets = getattr(load_config(config), kind)
    if text not in presets:
        raise ConfigError(f"there is no preset '{text}' among {kind}{_nearest(text, presets)}")
    return presets[text]


def described_runs(config: Config) -> list[dict[str, Any]]:
    """The runs with all settings of the presets they use, as plain JSON values."""
    described = []
    for run in config.runs:
        names = [Variant(name).presets for name in run.variants if Variant(name).is_quantized]
        presets: dict[str, Any] = {"model": config.models[run.model]}
        for position, kind in enumerate(("calibrations", "bits", "reconstructions")):
            presets[kind] = {name: getattr(config, kind)[name] for name in dict.fromkeys(n[position] for n in names)}
        evaluation = config.evaluations[run.evaluation]
        described.append(to_jsonable_python(run.model_dump() | {"evaluation_settings": evaluation, "presets": presets}, by_alias=True))
    return described
