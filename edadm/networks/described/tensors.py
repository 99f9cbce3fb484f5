"""A file of tensors alone as an entry under `models:`: names and shapes say most of what a network is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edadm.config.described.conditions import about_classes, refine
from edadm.config.described.entry import Description
from edadm.config.described.pixart import about_t5
from edadm.config.schema import Model
from edadm.networks.described.autoencoder import autoencoder_of
from edadm.networks.described.compvis import compvis_unet
from edadm.networks.described.condition import condition_of
from edadm.networks.described.dit import AUTOENCODER, dit, pixart
from edadm.networks.described.sizes import check_ends, indices, with_size
from edadm.networks.described.training import SIDES, training_of
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
    "pixart": "t_block.1.weight",
    "dit": "t_embedder.mlp.0.weight",
    "diffusers": "time_embedding.linear_1.weight",
}
_CONTROL = "control_model."


def describe_tensors(
    path: Path, presets: Mapping[str, Model], training: tuple[str, Settings] | None = None
) -> Description:
    """What a file's tensors say of its networks.

    Args:
        path: a file of weights.
        presets: whose settings are taken where sizes are theirs and tensors leave something open.
        training: what the network predicts and its noise schedule, where something else says them.

    Raises:
        CheckpointError: no file of weights.
        DescriptionError: of a network that is not built here, or one whose tensors say too little.
    """
    container = open_container(path)
    refuse_useless(container, path)
    state, _ = chosen(weights_in(container.content, path), "auto", path)
    layout, shapes = _unet_of({name: stored.shape for name, stored in state.items()}, path)
    try:
        architecture, left_open = _ARCHITECTURES[layout](shapes, path, presets)
        settings: Settings = {"checkpoint": str(path), "layout": layout, "architecture": architecture}
        if layout == "compvis":
            _add_parts(settings, state, left_open, path)
        if "patch" in architecture:
            settings |= {"autoencoder": dict(AUTOENCODER)}
            settings |= {"conditioning": _told(settings, left_open)}
            left_open.append(
                "autoencoder.checkpoint: set it to the folder of the VAE (stabilityai/sd-vae-ft-ema), which "
                "the file does not hold"
            )
    except KeyError as error:
        raise DescriptionError(
            f"{path} lacks the tensor {error}, which all networks of its layout have; give the whole file"
        ) from None
    is_second = architecture["family"] == "diffusers"
    settings["prediction"], settings["schedule"] = training or training_of(
        state, container.metadata, layout, left_open, path, is_second
    )
    if is_second:
        architecture["image_size"] = SIDES.get(settings["prediction"], architecture["image_size"])
    refine(settings, left_open)
    return Description(settings, left_open)


def _told(settings: Settings, left_open: list[str]) -> Settings:
    """What a transformer of patches is told."""
    if "classes" in settings["architecture"]:
        return about_classes(settings["architecture"]["classes"], left_open)
    left_open.append(
        "conditioning.checkpoint: set it to a folder with text_encoder and tokenizer (T5 version 1.1, XXL), "
        "which the file does not hold"
    )
    left_open.append(
        "autoencoder.scale is PixArt-alpha's; PixArt-Sigma has the VAE of Stable Diffusion XL (0.13025), and "
        "prompts of 300 tokens (conditioning.t5.tokens)"
    )
    return about_t5(settings, left_open)


def _add_parts(settings: Settings, state: dict[str, Stored], left_open: list[str], path: Path) -> None:
    shapes = {name: stored.shape for name, stored in state.items()}
    if autoencoder := autoencoder_of(shapes, left_open, path, settings["architecture"]["family"]):
        settings["autoencoder"] = autoencoder
    if "context_channels" in settings["architecture"]:
        settings["conditioning"] = condition_of(shapes, settings["architecture"], left_open, path)


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


def _ddim(shapes: Shapes, path: Path, presets: Mapping[str, Model]) -> tuple[Settings, list[str]]:
    """ermongroup/ddim's U-Net: names count levels and blocks."""
    left_open: list[str] = []
    channels, given = shapes["conv_in.weight"][:2]
    check_ends(given, shapes["conv_out.weight"][0], path)
    levels = indices(shapes, r"down\.(\d+)\.block\.")
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
        "blocks_per_level": len(indices(shapes, r"down\.0\.block\.(\d+)\.")),
    }
    settings |= groups_of([channels, *widths], left_open, "architecture")
    attends = [f"down.{level}.attn.0.q.weight" in shapes for level in levels]
    side = 16 << attends.index(True) if attends.count(True) == 1 else 32
    return with_size(settings, attends, presets, left_open, side), left_open


def _dit(shapes: Shapes, path: Path, presets: Mapping[str, Model]) -> tuple[Settings, list[str]]:
    """A transformer of patches, of which tensors say nearly all."""
    left_open: list[str] = []
    return dit(shapes, left_open), left_open


def _pixart(shapes: Shapes, path: Path, presets: Mapping[str, Model]) -> tuple[Settings, list[str]]:
    """Another one."""
    left_open: list[str] = []
    return pixart(shapes, left_open), left_open


_ARCHITECTURES = {"ddim": _ddim, "compvis": compvis_unet, "dit": _dit, "pixart": _pixart}
