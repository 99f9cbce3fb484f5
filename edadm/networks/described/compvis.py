"""CompVis' U-Net from the shapes of its tensors, of any model that comes in its layout."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from edadm.config.schema import Model
from edadm.networks.described.sizes import Shapes, check_ends, indices, with_size
from edadm.networks.settings.families import FamilyEntry, edited_family
from edadm.networks.settings.reading import DescriptionError, Settings, groups_of

_HEAD = 64  # channels of a head in Stable Diffusion 2 and XL
_HEADS = 8  # of every attention in Stable Diffusion 1
_SIZE = 256  # numbers for each size that XL's embedding of time adds
_SIDES = {"sdxl": 128}  # heights of latents, where they are not those of 512 pixels
_LABELS = "label_emb.0.0.weight"
_UPSAMPLED = r"output_blocks\.\d+\.[12]\.conv\.weight"


def compvis_unet(shapes: Shapes, path: Path, presets: Mapping[str, Model]) -> tuple[Settings, list[str]]:
    """The settings of the network, and what its tensors leave open.

    Input blocks count levels, output blocks their res-blocks; embedding layers tell of FiLM.

    Args:
        shapes: by the names inside the U-Net.
        path: of the file, for sentences.
        presets: whose settings are taken where sizes are theirs and tensors leave something open.

    Raises:
        DescriptionError: of a network that is not built here.
    """
    if "label_emb.weight" in shapes:
        raise DescriptionError(
            f"{path} holds a U-Net in CompVis' names whose time embedding adds classes (ADM), which is not "
            "built here; use another checkpoint"
        )
    levels = _Levels(shapes)
    given, predicted = shapes["input_blocks.0.0.weight"][1], shapes["out.2.weight"][0]
    edited = edited_family(given, predicted) if levels.across else None
    if edited is None:
        check_ends(given, predicted, path)
    if _LABELS in shapes or edited or (levels.across and (levels.is_linear or max(levels.depths) > 1)):
        return _by_diffusers(shapes, levels, edited, predicted, path)
    left_open: list[str] = []
    settings: Settings = {
        "family": "transformer" if levels.across else "ldm",
        "in_channels": given,
        "channels": levels.channels,
        "multipliers": [width // levels.channels for width in levels.widths],
        "blocks_per_level": levels.blocks,
    }
    settings |= groups_of([levels.channels, *levels.widths], left_open, "architecture")
    if levels.across:
        settings["context_channels"] = levels.context
    elif shapes["input_blocks.1.0.emb_layers.1.weight"][0] == 2 * levels.widths[0]:
        settings["scale_shift"] = True
    if not levels.across and levels.ups and not any(re.match(_UPSAMPLED, name) for name in shapes):
        settings["resample"] = "res_block"
    return with_size(settings, levels.attends, presets, left_open, 64), left_open


class _Levels:
    """What names and shapes tell of a U-Net's levels, the finest first.

    Attributes:
        channels: of the first convolution.
        blocks: res-blocks of a level on the way down.
        widths: channels of each level.
        attends: whether each has attention.
        depths: transformer blocks of an attention of each level; the middle's where a level has none.
        across: whether attentions look at a context.
        context: its channels, 0 without one.
        is_linear: whether attentions are entered by linear layers.
        ups: output blocks with an upsampler.
    """

    def __init__(self, shapes: Shapes) -> None:
        self.channels = shapes["input_blocks.0.0.weight"][0]
        self.ups = indices(shapes, r"output_blocks\.(\d+)\.[12]\.(?:conv\.weight|in_layers\.0\.weight)")
        outputs = indices(shapes, r"output_blocks\.(\d+)\.")
        self.blocks = self.ups[0] if self.ups else len(outputs) - 1
        firsts = [1 + level * (self.blocks + 1) for level in range(len(outputs) // (self.blocks + 1))]
        self.widths = [shapes[f"input_blocks.{first}.0.in_layers.2.weight"][0] for first in firsts]
        self.attends = [
            any(name.startswith(f"input_blocks.{first}.1.") for name in shapes) for first in firsts
        ]
        middle = _depth(shapes, "middle_block.1")
        self.depths = [_depth(shapes, f"input_blocks.{first}.1") or middle for first in firsts]
        self.across = middle > 0
        attention = "middle_block.1.transformer_blocks.0.attn2.to_k.weight"
        self.context = shapes[attention][1] if self.across else 0
        self.is_linear = len(shapes.get("middle_block.1.proj_in.weight", ())) == 2


def _depth(shapes: Shapes, place: str) -> int:
    """How many transformer blocks an attention has; 0 without one, or of another kind."""
    return len(indices(shapes, rf"{re.escape(place)}\.transformer_blocks\.(\d+)\."))


def _by_diffusers(
    shapes: Shapes, levels: _Levels, edited: FamilyEntry | None, channels: int, path: Path
) -> tuple[Settings, list[str]]:
    """A network that diffusers' own settings describe: Stable Diffusion 2, XL, and what is given an image."""
    left_open: list[str] = []
    added = shapes.get(_LABELS)
    if added and edited:
        raise DescriptionError(
            f"{path} holds a U-Net of Stable Diffusion XL that is given an image, which is not built here; "
            "use another checkpoint"
        )
    family = edited.name if edited else "sdxl" if added else "diffusers"
    side = _SIDES.get(family, 64)
    if family != "diffusers":  # of Stable Diffusion 2 it goes with what it predicts
        left_open.append(
            f"architecture.image_size stands in no tensor: {side} is a guess (an eighth of the pixels that "
            "the model was trained with)"
        )
    settings: Settings = {"family": family, "image_size": side, "in_channels": channels}
    settings["context_channels"] = levels.context
    if added:
        settings |= {"added_channels": added[1], "size_channels": _size_channels(added[1], left_open)}
    own: Settings = {"class_name": "UNet2DConditionModel", "block_out_channels": levels.widths}
    down = ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in levels.attends]
    up = ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(levels.attends)]
    own |= {"down_block_types": down, "up_block_types": up}
    own |= {"layers_per_block": levels.blocks} if levels.blocks != 2 else {}
    own |= {"attention_head_dim": _heads(levels, left_open)}
    depths = _depths(levels)
    own |= {"transformer_layers_per_block": depths} if max(depths) > 1 else {}
    own |= {"use_linear_projection": True} if levels.is_linear else {}
    widths = [levels.channels, *levels.widths]
    own |= groups_of(widths, left_open, "architecture.diffusers", "norm_num_groups")
    return settings | {"diffusers": own}, left_open


def _depths(levels: _Levels) -> list[int]:
    """Depths as diffusers states them: 1 where no block attends; of the last level the middle's."""
    last = len(levels.depths) - 1
    shown = zip(levels.depths, levels.attends, strict=True)
    return [depth if attends or level == last else 1 for level, (depth, attends) in enumerate(shown)]


def _heads(levels: _Levels, left_open: list[str]) -> int | list[int]:
    """The number of heads of each level, which diffusers calls `attention_head_dim`."""
    if not levels.is_linear and not any(width % _HEADS for width in levels.widths):
        left_open.append(
            f"architecture.diffusers.attention_head_dim (the number of heads) stands in no tensor: {_HEADS} "
            "is Stable Diffusion 1's, and other numbers give other images"
        )
        return _HEADS
    heads = [max(1, width // _HEAD) for width in levels.widths]
    left_open.append(
        f"architecture.diffusers.attention_head_dim (the number of heads) stands in no tensor: heads of "
        f"{_HEAD} channels are those of Stable Diffusion 2 and XL, and other numbers give other images"
    )
    return heads


def _size_channels(added: int, left_open: list[str]) -> int:
    """Numbers for each of the sizes that the embedding of time adds, which stand in no tensor."""
    if added > 6 * _SIZE:
        return _SIZE
    left_open.append("architecture.size_channels stands in no tensor: 1 is a guess")
    return 1
