"""A file of tensors alone as an entry under `models:`: names and shapes say most of what a network is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from edadm.config.described.entry import Description
from edadm.config.schema import Model
from edadm.networks.described.autoencoder import autoencoder_of, condition_of
from edadm.networks.described.training import training_of
from edadm.networks.settings.reading import DescriptionError, Settings, groups_of
from edadm.networks.weights.containers import chosen, weights_in
from edadm.networks.weights.known.identify import refuse_useless
from edadm.networks.weights.known.kinds import kind_of
from edadm.networks.weights.packed.stored import Stored
from edadm.networks.weights.reading import open_container

Shapes = dict[str, tuple[int, ...]]
_ANCHORS = {
    "compvis": "time_embed.0.weight",
    "ddim": "temb.dense.0.weight",
    "diffusers": "time_embedding.linear_1.weight",
}
_CONTROL = "control_model."


def describe_tensors(path: Path, presets: Mapping[str, Model]) -> Description:
    """What a file's tensors say of its networks.

    Args:
        path: a file of weights.
        presets: whose settings are taken where sizes are theirs and tensors leave something open.

    Raises:
        CheckpointError: no file of weights.
        DescriptionError: of a network that is not built here, or one whose tensors say too little.
    """
    container = open_container(path)
    refuse_useless(container, path)
    state, _ = chosen(weights_in(container.content, path), "auto", path)
    layout, shapes = _unet_of({name: stored.shape for name, stored in state.items()}, path)
    architecture, left_open = (_ddim if layout == "ddim" else _compvis)(shapes, path, presets)
    settings: Settings = {"checkpoint": str(path), "layout": layout, "architecture": architecture}
    if layout == "compvis":
        _add_parts(settings, state, left_open, path)
    settings["prediction"], settings["schedule"] = training_of(
        state, container.metadata, layout, left_open, path
    )
    return Description(settings, left_open)


def _add_parts(settings: Settings, state: dict[str, Stored], left_open: list[str], path: Path) -> None:
    shapes = {name: stored.shape for name, stored in state.items()}
    if autoencoder := autoencoder_of(shapes, left_open, path):
        settings["autoencoder"] = autoencoder
    width = settings["architecture"].get("context_channels")
    if width is not None:
        settings["conditioning"] = condition_of(shapes, width, left_open, path)


def _unet_of(shapes: Shapes, path: Path) -> tuple[str, Shapes]:
    """The layout of the U-Net and its tensors by the names inside it."""
    for layout, anchor in _ANCHORS.items():
        found = {name.removesuffix(anchor) for name in shapes if f".{name}".endswith(f".{anchor}")}
        found = {prefix for prefix in found if not prefix.endswith(_CONTROL)}
        if len(found) > 1:
            raise DescriptionError(
                f"{path} holds more than one U-Net ({', '.join(sorted(found))}); export one and describe that"
            )
        if not found:
            continue
        if layout == "diffusers":
            raise DescriptionError(
                f"{path} names its tensors as diffusers does, and sizes alone do not say which of its "
                "networks this is; "
                "put the config.json that belongs to it beside it, or give the whole folder"
            )
        (prefix,) = found
        return layout, {
            name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)
        }
    kind = kind_of(shapes)
    if kind is not None and kind.part not in ("unet", "all"):
        what = kind.what.removesuffix(", not a U-Net")
        raise DescriptionError(
            f"{path} holds {what} and no U-Net; {kind.advice or 'name the file of the U-Net'}"
        )
    raise DescriptionError(f"{path} holds no U-Net (no tensor '{_ANCHORS['compvis']}'); name the file of one")


def _indices(shapes: Shapes, pattern: str) -> list[int]:
    """Numbers at the place of the first group in names that match, in order, each once."""
    matcher = re.compile(pattern)
    return sorted({int(match.group(1)) for name in shapes if (match := matcher.match(name))})


def _check_ends(given: int, predicted: int, path: Path) -> None:
    if given != predicted:
        kinds = {
            9: "an inpainting network",
            8: "an image-editing network (InstructPix2Pix)",
            7: "an upscaler",
        }
        what = (
            "one that predicts a variance, too"
            if predicted == 2 * given
            else kinds.get(given, "another kind of network")
        )
        raise DescriptionError(
            f"{path} holds a U-Net with {given} input and {predicted} output channels: that is {what}; only "
            "networks that predict what "
            "they are given are built here"
        )


def _compvis(shapes: Shapes, path: Path, presets: Mapping[str, Model]) -> tuple[Settings, list[str]]:
    """latent-diffusion's U-Net: input blocks count levels, output blocks their res-blocks.

    Embedding layers tell of FiLM.
    """
    left_open: list[str] = []
    channels, given = shapes["input_blocks.0.0.weight"][:2]
    _check_ends(given, shapes["out.2.weight"][0], path)
    if "label_emb.0.0.weight" in shapes or "label_emb.weight" in shapes:
        raise DescriptionError(
            f"{path} holds a U-Net in CompVis' names whose time embedding adds classes or sizes (SDXL, ADM); "
            "of SDXL, give the model's diffusers folder; others are not built here"
        )
    ups = _indices(shapes, r"output_blocks\.(\d+)\.[12]\.(?:conv\.weight|in_layers\.0\.weight)")
    outputs = _indices(shapes, r"output_blocks\.(\d+)\.")
    blocks = ups[0] if ups else len(outputs) - 1
    firsts = [1 + level * (blocks + 1) for level in range(len(outputs) // (blocks + 1))]
    widths = [shapes[f"input_blocks.{first}.0.in_layers.2.weight"][0] for first in firsts]
    attends = [any(name.startswith(f"input_blocks.{first}.1.") for name in shapes) for first in firsts]
    across = any(".transformer_blocks." in name for name in shapes)
    if (
        any(".transformer_blocks.1." in name for name in shapes)
        or len(shapes.get("middle_block.1.proj_in.weight", (0,) * 4)) == 2
    ):
        raise DescriptionError(
            f"{path} holds a U-Net of Stable Diffusion 2 or XL in CompVis' names; give the model's diffusers "
            "folder"
        )
    settings: Settings = {
        "family": "transformer" if across else "ldm",
        "in_channels": given,
        "channels": channels,
        "multipliers": [width // channels for width in widths],
        "blocks_per_level": blocks,
    }
    settings |= groups_of([channels, *widths], left_open, "architecture")
    if across:
        settings["context_channels"] = shapes["middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1]
    elif shapes["input_blocks.1.0.emb_layers.1.weight"][0] == 2 * widths[0]:
        settings["scale_shift"] = True
    if (
        not across
        and ups
        and not any(re.match(r"output_blocks\.\d+\.[12]\.conv\.weight", name) for name in shapes)
    ):
        settings["resample"] = "res_block"
    return _with_size(settings, attends, presets, left_open, 64), left_open


def _ddim(shapes: Shapes, path: Path, presets: Mapping[str, Model]) -> tuple[Settings, list[str]]:
    """ermongroup/ddim's U-Net: names count levels and blocks."""
    left_open: list[str] = []
    channels, given = shapes["conv_in.weight"][:2]
    _check_ends(given, shapes["conv_out.weight"][0], path)
    levels = _indices(shapes, r"down\.(\d+)\.block\.")
    if len(levels) > 1 and "down.0.downsample.conv.weight" not in shapes:
        raise DescriptionError(
            f"{path} holds a U-Net that resamples without convolutions, which is not built here"
        )
    widths = [shapes[f"down.{level}.block.0.conv1.weight"][0] for level in levels]
    settings: Settings = {
        "family": "ddim",
        "in_channels": given,
        "channels": channels,
        "multipliers": [width // channels for width in widths],
        "blocks_per_level": len(_indices(shapes, r"down\.0\.block\.(\d+)\.")),
    }
    settings |= groups_of([channels, *widths], left_open, "architecture")
    attends = [f"down.{level}.attn.0.q.weight" in shapes for level in levels]
    side = 16 << attends.index(True) if attends.count(True) == 1 else 32
    return _with_size(settings, attends, presets, left_open, side), left_open


def _with_size(
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
