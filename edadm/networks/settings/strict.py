"""The base of all settings, and counts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1, le=10**9)]


class Strict(BaseModel):
    """Settings that refuse unknown keys, later changes, and values of another type.

    "5" and true are no numbers, .inf and .nan none to work with.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, strict=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _lists_are_kept_as_tuples(cls, settings: Any) -> Any:
        if not isinstance(settings, dict):
            return settings
        return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}


def of_some(description: str) -> Any:
    """A setting that some kinds have; files of the others do not name it, as before there was any."""
    return Field(None, description=description, exclude_if=lambda value: value is None)
