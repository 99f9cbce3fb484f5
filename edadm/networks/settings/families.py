"""The registry of families, by which networks are built: what is known of each before torch is imported.

Settings, checks and descriptions read names of families here and nowhere else. The code of one is its module,
which `edadm.networks.families` imports.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from edadm.networks.settings.parts import TIME_IDS, sizes_told

Sizes = Mapping[str, Any]  # settings of a `Architecture` by name
_SIZES = ("channels", "multipliers", "blocks_per_level", "attention_resolutions", "norm_groups")
_HEADS = ("heads", "head_channels")


@dataclass(frozen=True)
class FamilyEntry:
    """What is known of a family before its code is imported.

    Attributes:
        name: of the family in configurations and checkpoints.
        module: the dotted name of the module whose `FAMILY` is its `edadm.networks.family.Family`.
        settings: names of its settings, beside those that all families have.
        check: raises a `ValueError` with a sentence where settings do not belong together.
        layout: of its original checkpoints, which a preset's `layout` names; None if all have diffusers'.
        conditions: kinds of conditions that its networks may be told.
        is_sized: whether a U-Net's sizes describe it, and not diffusers' own settings or a transformer's.
        marks: keys of a diffusers U-Net's `config.json`, with the values by which it is of this family.
        keys: further ones that only this family has, with the settings that take their values.
        predictions: what its networks may predict.
        image: how many channels of an image stand behind those of the noise, by the latents' channels.
    """

    name: str
    module: str
    settings: tuple[str, ...]
    check: Callable[[Sizes], None] = lambda sizes: None
    layout: str | None = None
    conditions: tuple[str, ...] = ()
    is_sized: bool = True
    marks: Mapping[str, Any] = field(default_factory=dict)
    keys: Mapping[str, str] = field(default_factory=dict)
    predictions: tuple[str, ...] = ("eps", "v", "sample", "flow")
    image: Callable[[int], int] = lambda channels: 0


def _check_heads(sizes: Sizes) -> None:
    if (sizes["heads"] is None) == (sizes["head_channels"] is None):
        raise ValueError(f"the family '{sizes['family']}' needs either heads or head_channels")


def _check_transformer(sizes: Sizes) -> None:
    if not (sizes["context_channels"] and (sizes["heads"] or sizes["head_channels"])):
        raise ValueError(
            "the family 'transformer' needs heads and context_channels; head_channels may stand for heads"
        )
    _check_heads(sizes)


def _check_diffusers(sizes: Sizes) -> None:
    stated = sizes["diffusers"]
    if stated is None:
        raise ValueError(
            f"the family '{sizes['family']}' needs its settings; `edadm describe FOLDER` prints them"
        )
    across = stated.class_name == "UNet2DConditionModel"
    if across != (sizes["context_channels"] is not None):
        fix = "set context_channels to its cross_attention_dim" if across else "remove context_channels"
        raise ValueError(f"a {stated.class_name} has {'a' if across else 'no'} context; {fix}")
    halved = 2 ** (len(stated.block_out_channels) - 1)
    if (side := sizes["image_size"]) % halved:
        raise ValueError(f"image_size {side} cannot be halved once per level; take a multiple of {halved}")


def _check_edited(sizes: Sizes) -> None:
    _check_diffusers(sizes)
    if sizes["context_channels"] is None:
        raise ValueError(
            f"the family '{sizes['family']}' is told a text; set class_name: UNet2DConditionModel and "
            "context_channels"
        )


def _check_sdxl(sizes: Sizes) -> None:
    _check_diffusers(sizes)
    added, each = sizes["added_channels"], sizes["size_channels"]
    if sizes["context_channels"] is None or added is None or each is None:
        raise ValueError(
            "the family 'sdxl' needs context_channels, added_channels and size_channels; `edadm describe "
            "FOLDER` prints them"
        )
    if added <= TIME_IDS * each and sizes_told(added, each, sizes["context_channels"]) == TIME_IDS:
        raise ValueError(
            f"added_channels {added} leaves none for a pooled text beside {TIME_IDS} sizes of {each}"
        )


def _check_dit(sizes: Sizes) -> None:
    _check_patches(sizes, ("heads", "blocks", "patch", "classes"))


def _check_patches(sizes: Sizes, own: tuple[str, ...]) -> None:
    """Whether sizes of a transformer of patches, of which all in `own` are needed, belong together."""
    if absent := next((name for name in own if sizes[name] is None), None):
        raise ValueError(f"the family '{sizes['family']}' needs {absent}; `edadm describe` prints it")
    width, heads, side, patch = (sizes[name] for name in ("channels", "heads", "image_size", "patch"))
    if width % heads or width % 4:
        raise ValueError(f"channels {width} must be a multiple of the {heads} heads and of 4; change either")
    if side % patch:
        raise ValueError(f"image_size {side} cannot be cut into patches of {patch}; take a multiple of it")
    latents = sizes["in_channels"]
    if sizes["out_channels"] not in (None, 2 * latents):
        raise ValueError(
            f"out_channels is {sizes['out_channels']}; set it to {2 * latents} where the network predicts a "
            "variance, or remove it"
        )


def _check_pixart(sizes: Sizes) -> None:
    if sizes["context_channels"] is None:
        raise ValueError("the family 'pixart' needs context_channels; `edadm describe FOLDER` prints it")
    _check_patches(sizes, ("heads", "blocks", "patch"))
    if sizes["size_told"] and sizes["channels"] % 3:
        raise ValueError(
            f"channels {sizes['channels']} must be a multiple of 3 where the image's size is told; change "
            "it, or remove size_told"
        )


def _check_mmdit(sizes: Sizes) -> None:
    _check_patches(sizes, ("heads", "blocks", "patch", "context_channels", "text_channels", "places"))
    side, patch, places = (sizes[name] for name in ("image_size", "patch", "places"))
    if side > patch * places:
        raise ValueError(f"image_size {side} has more than {places} patches along a side; raise places")
    if beyond := [block for block in sizes["dual_blocks"] or () if block >= sizes["blocks"]]:
        raise ValueError(f"dual_blocks names the block {beyond[0]} of {sizes['blocks']}; remove it")


_OF_ANY_KIND = ("classes", "text")
_ENTRIES = (
    FamilyEntry("ddim", "edadm.networks.unet.ddim", _SIZES, layout="ddim"),
    FamilyEntry(
        "ldm",
        "edadm.networks.unet.ldm",
        (*_SIZES, *_HEADS, "scale_shift", "resample"),
        _check_heads,
        layout="compvis",
    ),
    FamilyEntry(
        "transformer",
        "edadm.networks.unet.conditional",
        (*_SIZES, *_HEADS, "context_channels"),
        _check_transformer,
        layout="compvis",
        conditions=_OF_ANY_KIND,
    ),
    FamilyEntry(
        "diffusers",
        "edadm.networks.unet.diffusers",
        ("context_channels", "diffusers"),
        _check_diffusers,
        conditions=_OF_ANY_KIND,
        is_sized=False,
    ),
    FamilyEntry(
        "sdxl",
        "edadm.networks.unet.sdxl",
        ("context_channels", "diffusers", "added_channels", "size_channels"),
        _check_sdxl,
        conditions=("sdxl", "sdxl_refiner"),
        is_sized=False,
        marks={"addition_embed_type": "text_time"},
        keys={
            "projection_class_embeddings_input_dim": "added_channels",
            "addition_time_embed_dim": "size_channels",
        },
    ),
    FamilyEntry(
        "inpainting",
        "edadm.networks.unet.inpainting",
        ("context_channels", "diffusers"),
        _check_edited,
        conditions=("inpainting",),
        is_sized=False,
        image=lambda channels: channels + 1,
    ),
    FamilyEntry(
        "instruct_pix2pix",
        "edadm.networks.unet.instruct_pix2pix",
        ("context_channels", "diffusers"),
        _check_edited,
        conditions=("instruct_pix2pix",),
        is_sized=False,
        image=lambda channels: channels,
    ),
    FamilyEntry(
        "dit",
        "edadm.networks.transformers.dit",
        ("channels", "heads", "blocks", "patch", "classes", "out_channels"),
        _check_dit,
        layout="dit",
        conditions=("classes",),
        is_sized=False,
    ),
    FamilyEntry(
        "pixart",
        "edadm.networks.transformers.pixart",
        (
            *("channels", "heads", "blocks", "patch", "out_channels"),
            *("context_channels", "position_scale", "size_told"),
        ),
        _check_pixart,
        layout="pixart",
        conditions=("t5",),
        is_sized=False,
    ),
    FamilyEntry(
        "mmdit",
        "edadm.networks.transformers.mmdit",
        (
            *("channels", "heads", "blocks", "patch", "context_channels"),
            *("text_channels", "places", "dual_blocks", "qk_norm"),
        ),
        _check_mmdit,
        conditions=("sd3",),
        is_sized=False,
        predictions=("flow",),
    ),
)
FAMILIES = {entry.name: entry for entry in _ENTRIES}


def described_family(config: Mapping[str, Any]) -> FamilyEntry:
    """The family of the U-Net that a diffusers `config.json` describes."""
    marked = (entry for entry in _ENTRIES if entry.marks)
    fitting = (
        entry for entry in marked if all(config.get(key) == value for key, value in entry.marks.items())
    )
    if found := next(fitting, None):
        return found
    ends = (config.get("in_channels"), config.get("out_channels"))
    edited = edited_family(*ends) if config.get("_class_name") == "UNet2DConditionModel" else None
    return edited or FAMILIES["diffusers"]


def edited_family(given: Any, predicted: Any) -> FamilyEntry | None:
    """The family of U-Nets that are told a text and given an image behind the noise, by numbers of channels.

    Args:
        given: channels of the input.
        predicted: channels of the output, which are those of the noise.
    """
    if not (isinstance(given, int) and isinstance(predicted, int)) or given == predicted:
        return None
    return next((entry for entry in _ENTRIES if given == predicted + entry.image(predicted)), None)
