"""Presets, by name or as settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edadm.config.load import find_preset, load_config


def preset(kind: str, given: str | Mapping[str, Any]) -> Any:
    """A preset of the package by name, or from settings, which may change another one (`base`).

    Raises:
        ConfigError: no such preset, or settings that do not validate.
    """
    if isinstance(given, str):
        return find_preset(kind, given)
    return getattr(load_config({kind: {"given": dict(given)}}), kind)["given"]
