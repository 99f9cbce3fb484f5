"""The U-Net keys of CompVis/latent-diffusion and Stable Diffusion checkpoints, to and from diffusers."""

from __future__ import annotations

import re

from torch import Tensor

from edadm.networks.settings.architecture import Architecture

_STEMS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
}
_BLOCK_PARTS = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}
_ATTENTION_PARTS = {"norm": "group_norm", "proj_out": "to_out.0"}

_MODULE = re.compile(r"(input_blocks|output_blocks)\.(\d+)\.(\d)\.(.+)$")
_MIDDLE_MODULE = re.compile(r"middle_block\.([012])\.(.+)$")


def diffusers_module(module: str, architecture: Architecture) -> str:
    """The diffusers name of an original module.

    E.g. `output_blocks.2.1.conv` -> `up_blocks.0.upsamplers.0.conv`.

    Raises:
        KeyError: the name does not belong to the layout.
    """
    if module in _STEMS:
        return _STEMS[module]
    if match := _MIDDLE_MODULE.match(module):
        position, part = match.groups()
        return f"mid_block.{_MIDDLE[position]}.{_part(part, architecture)}"
    if match := _MODULE.match(module):
        side, index, position, part = match.groups()
        block, inner = divmod(int(index) - (side == "input_blocks"), architecture.level_blocks + 1)
        blocks = "down_blocks" if side == "input_blocks" else "up_blocks"
        return f"{blocks}.{block}.{_inner(side, inner, position, part, architecture)}"
    raise KeyError(f"'{module}' is not a module of the CompVis U-Net layout")


def _inner(side: str, inner: int, position: str, part: str, architecture: Architecture) -> str:
    if side == "input_blocks" and inner == architecture.level_blocks:
        return f"downsamplers.0.{'conv' if part == 'op' else _part(part, architecture)}"
    if position == "0":
        return f"resnets.{inner}.{_part(part, architecture)}"
    if (
        part == "conv" or part in _BLOCK_PARTS
    ):  # behind the attention of the level's last block, or in its place
        return f"upsamplers.0.{_part(part, architecture)}"
    return f"attentions.{inner}.{_part(part, architecture)}"


def _part(part: str, architecture: Architecture) -> str:
    if part in _BLOCK_PARTS:
        return _BLOCK_PARTS[part]
    return part if architecture.family != "ldm" else _ATTENTION_PARTS.get(part, part)


def _check_depth(state: dict[str, Tensor], architecture: Architecture) -> None:
    """Refuses blocks that are counted otherwise: their numbers say to which level they belong."""
    blocks = {int(match[1]) for key in state if (match := re.match(r"input_blocks\.(\d+)\.", key))}
    halving = {int(match[1]) for key in state if (match := re.match(r"input_blocks\.(\d+)\.0\.op\.", key))}
    levels, per_level = len(architecture.level_channels), architecture.level_blocks
    expected = levels * (per_level + 1)
    if blocks and len(blocks) != expected:
        raise ValueError(
            f"it has {len(blocks)} input blocks, and {levels} multipliers with blocks_per_level {per_level} "
            f"make {expected}; "
            "mend the two, which `edadm describe` prints for this file"
        )
    if halving and min(halving) != per_level + 1:
        raise ValueError(
            f"its levels have {min(halving) - 1} blocks; set architecture.blocks_per_level to that"
        )


def to_diffusers(state: dict[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Original state dict -> diffusers state dict.

    Without condition, an attention holds query, key and value in one 1-D convolution whose outputs are
    ordered by head first and then by role (`QKVAttentionLegacy`); they become three matrices.

    Raises:
        KeyError: a key does not belong to the layout.
        ValueError: its blocks are not those of the architecture.
    """
    _check_depth(state, architecture)
    converted = {}
    for key, tensor in state.items():
        module, _, parameter = key.rpartition(".")
        name = diffusers_module(module, architecture)
        if architecture.family == "ldm" and name.endswith(".qkv"):
            rows = tensor.flatten(1) if tensor.dim() > 2 else tensor
            channels = rows.shape[0] // 3 if rows.dim() else 0
            heads = architecture.heads or channels // (architecture.head_channels or 1)
            if not heads or channels % heads or rows.shape[0] != 3 * channels:
                raise KeyError(
                    f"'{key}' of shape {tuple(tensor.shape)} is no query, key and value of whole heads"
                )
            roles = rows.reshape(heads, 3, channels // heads, *rows.shape[1:]).unbind(1)
            for role, part in zip("qkv", roles, strict=True):
                converted[f"{name.removesuffix('qkv')}to_{role}.{parameter}"] = part.reshape(
                    channels, *rows.shape[1:]
                )
        elif architecture.family == "ldm" and name.endswith(".to_out.0") and tensor.dim() > 2:
            converted[f"{name}.{parameter}"] = tensor.flatten(1)
        else:
            converted[f"{name}.{parameter}"] = tensor
    return converted


_DIFFUSERS = re.compile(
    r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)$"
)
_DIFFUSERS_MIDDLE = re.compile(r"mid_block\.((?:resnets|attentions)\.\d)\.(.+)$")


def from_diffusers(state: dict[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Diffusers state dict -> original state dict, the inverse of `to_diffusers`; of networks with a context.

    Raises:
        KeyError: a key does not belong to such a network.
    """
    assert architecture.context_channels, "attentions without context keep their matrices together"
    attends = {re.sub(r"\.attentions\..*", "", key) for key in state if ".attentions." in key}
    stems = {new: old for old, new in _STEMS.items()}
    original = {}
    for key, tensor in state.items():
        module, _, parameter = key.rpartition(".")
        old = stems.get(module) or _original_module(module, architecture.level_blocks, attends)
        original[f"{old}.{parameter}"] = tensor
    return original


def _original_module(module: str, level_blocks: int, attends: set[str]) -> str:
    parts = {new: old for old, new in _BLOCK_PARTS.items()}
    if match := _DIFFUSERS_MIDDLE.match(module):
        place = next(place for place, name in _MIDDLE.items() if name == match[1])
        return f"middle_block.{place}.{parts.get(match[2], match[2])}"
    if not (match := _DIFFUSERS.match(module)):
        raise KeyError(f"'{module}' is not a module of a U-Net with a context")
    side, block, kind, index, part = match.groups()
    first = int(block) * (level_blocks + 1)
    if kind == "downsamplers":
        return f"input_blocks.{first + level_blocks + 1}.0.op"
    if kind == "upsamplers":
        behind = 2 if f"up_blocks.{block}" in attends else 1
        return f"output_blocks.{first + level_blocks}.{behind}.{part}"
    name = (
        f"input_blocks.{first + int(index) + 1}" if side == "down" else f"output_blocks.{first + int(index)}"
    )
    return f"{name}.{0 if kind == 'resnets' else 1}.{parts.get(part, part)}"
