"""Settings as artifacts state them: those that shaped them, without paths."""

from __future__ import annotations

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


def settings_of(preset: Any, *fields: str) -> dict[str, Any]:
    """Settings of a preset, without paths.

    Args:
        fields: those that the stage depends on; all if none is given.
    """
    dump: dict[str, Any] = preset.model_dump(mode="json", by_alias=True, include=set(fields) or None)
    return {
        name: {key: part for key, part in value.items() if key not in _PLACES}
        if isinstance(value, dict)
        else value
        for name, value in dump.items()
    }
