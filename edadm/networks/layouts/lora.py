"""Names and scales of LoRA files: low-rank changes of layers, by kohya's scripts, diffusers and peft.

A LoRA (arXiv 2106.09685) adds alpha / rank * up @ down to a layer's weight. The forms that are read, by what
diffusers 0.42's `lora_conversion_utils.py` and peft 0.21's `save_and_load.py` read and write:

- kohya: `lora_unet_MODULE.lora_down.weight`, `.lora_up.weight`, `.alpha`, where MODULE is diffusers' name
  with `_` for `.`, or the original code's (`input_blocks_4_1_...`, as of SDXL); `.lora_mid.weight` between
  two 1x1 convolutions; `lora_te_`, `lora_te1_` and `lora_te2_` for text encoders;
- diffusers: `unet.MODULE.lora_A.weight` and `.lora_B.weight`, before that `.lora.down`,
  `.lora_linear_layer.down` and, of attention's processors, `MODULE.processor.to_q_lora.down`; alpha is the
  rank, unless the file's metadata say another one; `text_encoder.` and `text_encoder_2.` alike;
- peft: `base_model.model.MODULE.lora_A.weight`, with alpha in `adapter_config.json` beside the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from edadm.networks.layouts.compvis_unet import diffusers_module
from edadm.networks.settings.architecture import Architecture

UNET, TEXT, SECOND_TEXT = "unet", "text", "second_text"
_PREFIXES = {
    "lora_unet_": UNET,
    "lora_te1_": TEXT,
    "lora_te2_": SECOND_TEXT,
    "lora_te_": TEXT,
    "unet.": UNET,
    "text_encoder_2.": SECOND_TEXT,
    "text_encoder.": TEXT,
    "text_model.": TEXT,
}
_ROLES = {"A": "down", "B": "up", "down": "down", "up": "up", "mid": "mid"}
_NUMBERS = re.compile(r"(?P<module>.+)\.lora[._](?P<role>A|B|down|up|mid)(?:\.(?!weight$)\w+)?\.weight")
_OTHER = {  # parts of names by which other kinds of changes are known
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "oft_": "OFT",
    "ia3_": "IA3",
    ".diff": "whole differences",
}
_ADDED = {"label_emb_0_0": "add_embedding_linear_1", "label_emb_0_2": "add_embedding_linear_2"}  # of SDXL
_PARTS = ("in_layers", "emb_layers", "out_layers")  # whose numbers follow a `.` in the original code's names


@dataclass
class Change:
    """What a file adds to a layer's weight.

    Attributes:
        name: of the layer, as the file writes it.
        numbers: `down` (rank, in, ...), `up` (out, rank, ...), and `mid` (rank, rank, k, k) or none.
        alpha: the numerator of its scale; the rank if None.
    """

    name: str
    numbers: dict[str, Tensor] = field(default_factory=dict)
    alpha: float | None = None


def changes_in(state: Mapping[str, Tensor]) -> dict[tuple[str, str], Change]:
    """The changes in a file by part (`unet`, `text`, `second_text`) and layer, whose name is `flat`.

    Raises:
        ValueError: a tensor that is of another kind of change, or half of one.
    """
    found: dict[tuple[str, str], Change] = {}
    for name, tensor in state.items():
        if kind := next((kind for sign, kind in _OTHER.items() if sign in name), None):
            raise ValueError(f"'{name}' belongs to {kind}, not to a plain LoRA")
        current = re.sub(r"\.(to_[qkv]|to_out)_lora\.", r".\1.lora.", name.replace(".processor.", "."))
        current = current.replace(".lora_linear_layer.", ".lora.").removeprefix("base_model.model.")
        match = _NUMBERS.fullmatch(current)
        if not match and not current.endswith(".alpha"):
            raise ValueError(f"'{name}' is no low-rank factor and no alpha")
        module = match["module"] if match else current.removesuffix(".alpha")
        change = found.setdefault(_place(module), Change(module))
        if not match and tensor.numel() != 1:
            raise ValueError(f"'{name}' holds {tensor.numel()} numbers, and an alpha is one")
        if match and tensor.ndim < 2:
            raise ValueError(f"'{name}' of {tuple(tensor.shape)} is no matrix, as low-rank factors are")
        if match:
            change.numbers[_ROLES[match["role"]]] = tensor
        else:
            change.alpha = float(tensor)
    for change in found.values():
        if not {"down", "up"} <= change.numbers.keys():
            raise ValueError(f"'{change.name}' has one of two factors")
    return found


def flat(module: str) -> str:
    """A module's name with `_` for `.`, as kohya's scripts write it."""
    return module.replace(".", "_")


def _place(module: str) -> tuple[str, str]:
    """The part of a model that a name in a file is of, and the rest of the name."""
    for prefix, part in _PREFIXES.items():
        if module.startswith(prefix):
            rest = module if prefix == "text_model." else module.removeprefix(prefix)
            return part, flat(rest)
    return UNET, flat(module)


def candidates(layer: str, architecture: Architecture) -> Iterator[str]:
    """Names, `flat`, that a layer of the U-Net in a file may have today.

    Args:
        layer: as `changes_in` names it.
        architecture: of the network, which the original code's numbers depend on.
    """
    yield layer
    yield f"{layer}_0"  # diffusers' old names say `to_out`
    if layer in _ADDED:
        yield _ADDED[layer]
    match = re.fullmatch(r"(input_blocks|output_blocks)_(\d+)_(\d)_(.+)|(middle_block)_(\d)_(.+)", layer)
    own = re.sub(r"_(\d)$", r".\1", layer)  # time_embed_0, out_2
    if match:
        own = ".".join(group for group in match.groups() if group is not None)
    for part in _PARTS:
        own = own.replace(f"{part}_", f"{part}.")
    own = re.sub(r"^input_blocks_0\.0$", "input_blocks.0.0", own)
    try:
        yield flat(diffusers_module(own, architecture))
    except KeyError:
        return
