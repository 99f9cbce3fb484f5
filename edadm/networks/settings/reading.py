"""Settings that files state of a network, read key by key; what is not built here is refused by its key."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from edadm.errors import EdadmError
from edadm.networks.settings.architecture import Architecture

Settings = dict[str, Any]
Found = TypeVar("Found")

# diffusers' classes of networks that are built here.
UNETS = ("UNet2DModel", "UNet2DConditionModel")
TRANSFORMERS = ("DiTTransformer2DModel", "PixArtTransformer2DModel", "SD3Transformer2DModel")

QUANTIZED_ALREADY = "its weights are quantized already; take the checkpoint that they were made from"


class DescriptionError(EdadmError):
    """A description of a network that this package cannot build, with a sentence that names the setting."""


def read_json(file: Path) -> Settings:
    """A configuration file of diffusers or transformers.

    Raises:
        DescriptionError: unreadable, or no JSON object.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        because = os.strerror(error.errno or 0).lower()
        raise DescriptionError(f"{file} cannot be read ({because}); make it readable, or fetch it") from None
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise DescriptionError(f"{file} cannot be read as JSON ({reason}); fetch it again") from None
    if not isinstance(content, dict):
        raise DescriptionError(f"{file} holds no JSON object; fetch it again")
    return content


def understood(read: Callable[[Settings, Path], Found]) -> Callable[[Settings, Path], Found]:
    """A reader of a file's settings that says where values are of another kind than any writer's."""

    @wraps(read)
    def reading(config: Settings, where: Path) -> Found:
        try:
            return read(config, where)
        except EdadmError:
            raise
        except ValidationError as error:
            problem = error.errors()[0]
            setting = ".".join(map(str, problem["loc"]))
            raise DescriptionError(
                f"{where} has a value that fits no {setting} ({problem['msg']}); fetch it again"
            ) from None
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DescriptionError(
                f"{where} has a value of the wrong kind ({reason}); fetch it again"
            ) from None

    return reading


def refuse(where: Path, key: str, value: object, reason: str) -> DescriptionError:
    """The error of a setting that this package has no network for."""
    return DescriptionError(f"{where} says {key}: {json.dumps(value, default=str)}, and {reason}")


def groups_of(widths: Iterable[int], left_open: list[str], where: str, name: str = "norm_groups") -> Settings:
    """The setting of groups, `name`, where the original codes' 32 groups do not divide the channels."""
    widths = list(widths)
    if not any(width % 32 for width in widths):
        return {}
    groups = max(count for count in range(1, 33) if not any(width % count for width in widths))
    left_open.append(
        f"{where}.{name}: the original code's 32 does not divide all channels; {groups} is a guess"
    )
    return {name: groups}


def checked(
    where: Path, settings: Mapping[str, Any], neutral: Mapping[str, Any], reasons: Mapping[str, str]
) -> None:
    """Refuses settings that are neither at a value which changes nothing, nor None nor False.

    Args:
        where: the file, for the sentence.
        settings: those that nothing else reads.
        neutral: the values of known ones that change nothing; a tuple holds several.
        reasons: half sentences for some.
    """
    for key, value in settings.items():
        if key.startswith("_") or value is None or value is False:
            continue
        known = neutral.get(key, ())
        if value in (known if isinstance(known, tuple) else (known,)):
            continue
        unknown = "this package does not know what that does"
        raise refuse(where, key, value, reasons.get(key, unknown) + "; use another checkpoint")


def buildable(settings: Settings, where: Path) -> Settings:
    """The settings of an architecture as they are.

    Args:
        settings: of an `Architecture`.
        where: the file, for sentences.

    Raises:
        DescriptionError: they do not belong together.
    """
    try:
        Architecture.model_validate(settings)
    except ValidationError as error:
        problem = error.errors()[0]
        told = ".".join(map(str, problem["loc"])) or "its settings"
        reason = problem["msg"].removeprefix("Value error, ")
        raise DescriptionError(
            f"{where} describes no network that can be built ({told}: {reason}); use another checkpoint"
        ) from None
    return settings
