"""Sizes that names and shapes tell, and those that stand in no tensor."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from edadm.config.schema import Model
from edadm.networks.settings.reading import DescriptionError, Settings

Shapes = dict[str, tuple[int, ...]]


def indices(shapes: Shapes, pattern: str) -> list[int]:
    """Numbers at the place of the first group in names that match, in order, each once."""
    matcher = re.compile(pattern)
    return sorted({int(match.group(1)) for name in shapes if (match := matcher.match(name))})


def check_ends(given: int, predicted: int, path: Path) -> None:
    """Refuses a network that predicts something else than what it is given.

    Raises:
        DescriptionError: says what such a network is.
    """
    if given != predicted:
        what = "an upscaler" if given == 7 else "another kind of network"
        if predicted == 2 * given:
            what = "one that predicts a variance, too"
        raise DescriptionError(
            f"{path} holds a U-Net with {given} input and {predicted} output channels: that is {what}; only "
            "networks that predict what "
            "they are given are built here"
        )


def with_size(
    settings: Settings, attends: list[bool], presets: Mapping[str, Model], left_open: list[str], side: int
) -> Settings:
    """The image's size, and heads, which stand in no tensor.

    Those of a published network of the same sizes, or a guess.
    """
    same = next(
        ((name, model) for name, model in presets.items() if _is_same(settings, attends, model)), None
    )
    if same is not None:
        name, model = same
        left_open.append(
            "architecture: image_size, heads and groups stand in no tensor; they are those of the preset "
            f"{name}"
        )
        return model.architecture.model_dump(mode="json", exclude_defaults=True) | {
            "family": settings["family"]
        }
    left_open.append(
        f"architecture.image_size stands in no tensor: {side} is a guess, and attention_resolutions with it"
    )
    heights = [side >> level for level, attended in enumerate(attends) if attended]
    found = {"family": settings["family"], "image_size": side} | settings | {"attention_resolutions": heights}
    if settings["family"] == "ddim":
        return found
    widths = [settings["channels"] * multiplier for multiplier in settings["multipliers"]]
    attended = [width for width, at in zip(widths, attends, strict=True) if at] + widths[-1:]
    heads = next(count for count in (8, 4, 2, 1) if not any(width % count for width in attended))
    left_open.append(
        f"architecture.heads (or head_channels) stands in no tensor: {heads} is a guess, and other numbers "
        "give other images"
    )
    return found | {"heads": heads}


def _is_same(settings: Settings, attends: list[bool], model: Model) -> bool:
    """Whether a preset's network has the same tensors."""
    sizes = model.architecture
    keys = ("family", "in_channels", "channels", "blocks_per_level", "context_channels", "scale_shift")
    given = {"context_channels": None, "scale_shift": False} | settings
    attending = [
        sizes.image_size >> level in sizes.attention_resolutions for level in range(len(sizes.multipliers))
    ]
    equal = (
        all(given[key] == getattr(sizes, key) for key in keys)
        and list(sizes.multipliers) == given["multipliers"]
    )
    return equal and attending == attends and given.get("resample", "convolution") == sizes.resample
