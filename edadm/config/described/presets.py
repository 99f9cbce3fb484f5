"""Presets that say no more than where a diffusers folder is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edadm.config.described.folder import describe_folder, has_description
from edadm.config.inputs.settings import merged


def with_descriptions(settings: dict[str, Any]) -> dict[str, Any]:
    """Models without an architecture of their own, with what their diffusers folder says of itself.

    A model's own settings come first.

    Raises:
        DescriptionError: of a network that is not built here.
    """
    models = settings.get("models")
    if not isinstance(models, dict):
        return settings
    return settings | {"models": {name: _described(model) for name, model in models.items()}}


def _described(model: Any) -> Any:
    if (
        not isinstance(model, dict)
        or model.get("architecture")
        or not isinstance(model.get("checkpoint"), str)
    ):
        return model
    path = Path(model["checkpoint"]).expanduser()
    if not has_description(path):
        return model
    below = describe_folder(path).settings
    if "conditioning" in below:
        for name in ("prompts", "image_folder"):
            below["conditioning"].pop(name, None)  # placeholders in print; here the user is asked for them
    return merged(below, model)
