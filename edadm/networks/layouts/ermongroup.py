"""The checkpoint layout of ermongroup/ddim, to and from diffusers' `UNet2DModel`.

`model-790000.ckpt` and its EMA.
"""

from __future__ import annotations

import re

from torch import Tensor

_BLOCK_PARTS = {"temb_proj": "time_emb_proj", "nin_shortcut": "conv_shortcut"}
_ATTENTION_PARTS = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_STEMS = {
    "temb.dense.0": "time_embedding.linear_1",
    "temb.dense.1": "time_embedding.linear_2",
    "norm_out": "conv_norm_out",
}
_MIDDLE = {"block_1": "resnets.0", "block_2": "resnets.1", "attn_1": "attentions.0"}

_LEVEL_MODULE = re.compile(r"(down|up)\.(\d+)\.(?:(block|attn)\.(\d+)\.(\w+)|(downsample|upsample)\.conv)$")
_MIDDLE_MODULE = re.compile(r"mid\.(block_1|block_2|attn_1)\.(\w+)$")


def _part(kind: str, part: str) -> str:
    return (_ATTENTION_PARTS if "attn" in kind else _BLOCK_PARTS).get(part, part)


def diffusers_module(module: str, levels: int) -> str:
    """The diffusers name of an original module, e.g. `up.3.block.0.conv1` -> `up_blocks.0.resnets.0.conv1`.

    The original counts decoder levels by resolution (3 is the coarsest), diffusers in order of execution.

    Raises:
        KeyError: the name does not belong to the layout.
    """
    if match := _LEVEL_MODULE.match(module):
        side, level, kind, index, part, resample = match.groups()
        position = int(level) if side == "down" else levels - 1 - int(level)
        if resample:
            return f"{side}_blocks.{position}.{resample}rs.0.conv"
        collection = "resnets" if kind == "block" else "attentions"
        return f"{side}_blocks.{position}.{collection}.{index}.{_part(kind, part)}"
    if match := _MIDDLE_MODULE.match(module):
        kind, part = match.groups()
        return f"mid_block.{_MIDDLE[kind]}.{_part(kind, part)}"
    if module in _STEMS:
        return _STEMS[module]
    if module in ("conv_in", "conv_out"):
        return module
    raise KeyError(f"'{module}' is not a module of the ermongroup/ddim layout")


def _levels(names: list[str]) -> int:
    return 1 + max((int(match[1]) for name in names if (match := re.match(r"up\.(\d+)\.", name))), default=-1)


def to_diffusers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Original state dict -> diffusers state dict; 1x1 convolutions of attentions become matrices.

    Raises:
        KeyError: a key does not belong to the ermongroup/ddim layout.
    """
    levels = _levels(list(state))
    converted = {}
    for key, tensor in state.items():
        module, _, parameter = key.rpartition(".")
        name = diffusers_module(module, levels)
        is_matrix = ".attentions." in name and "group_norm" not in name and parameter == "weight"
        converted[f"{name}.{parameter}"] = tensor.flatten(1) if is_matrix and tensor.dim() > 2 else tensor
    return converted


def from_diffusers(state: dict[str, Tensor], levels: int | None = None) -> dict[str, Tensor]:
    """Diffusers state dict -> original state dict, the inverse of `to_diffusers`.

    Args:
        state: of a network.
        levels: resolutions; None counts them, which a network without a way up does not tell.
    """
    levels = levels or 1 + max(int(key.split(".")[1]) for key in state if key.startswith("up_blocks."))
    parts = {new: old for old, new in (_BLOCK_PARTS | _ATTENTION_PARTS).items()}
    stems = {
        new: old
        for old, new in (_STEMS | {f"mid.{old}": f"mid_block.{new}" for old, new in _MIDDLE.items()}).items()
    }
    original = {}
    for key, tensor in state.items():
        module, _, parameter = key.rpartition(".")
        is_matrix = ".attentions." in module and "group_norm" not in module and parameter == "weight"
        module = _original_module(module, levels, parts, stems)
        original[f"{module}.{parameter}"] = tensor[:, :, None, None] if is_matrix else tensor
    return original


def _original_module(module: str, levels: int, parts: dict[str, str], stems: dict[str, str]) -> str:
    if module in stems:
        return stems[module]
    if match := re.match(
        r"(down|up)_blocks\.(\d+)\.(?:(resnets|attentions)\.(\d+)\.(.+)|(downsample|upsample)rs\.0\.conv)$",
        module,
    ):
        side, position, collection, index, part, resample = match.groups()
        level = int(position) if side == "down" else levels - 1 - int(position)
        if resample:
            return f"{side}.{level}.{resample}.conv"
        kind = "block" if collection == "resnets" else "attn"
        return f"{side}.{level}.{kind}.{index}.{parts.get(part, part)}"
    for new, old in stems.items():
        if module.startswith(new + "."):
            part = module.removeprefix(new + ".")
            return f"{old}.{parts.get(part, part)}"
    return module
