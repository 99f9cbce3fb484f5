"""Which setting of a preset decides whether a network has a tensor, and of which shape."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

Shape = tuple[int, ...]
Names = Collection[str]

_ANCHORS = {
    "time_embedding.linear_1.weight": "architecture",
    "decoder.conv_in.weight": "autoencoder",
    "embeddings.token_embedding.weight": "conditioning.encoder",
    "text_model.embeddings.token_embedding.weight": "conditioning.second_encoder",
    "embedding.weight": "conditioning",
    "encoder.block.0.layer.0.SelfAttention.q.weight": "conditioning.t5",
}
_BLOCKS = r"(?:encoder\.|decoder\.)?(?:down|up)_blocks"
_LEVEL = re.compile(rf"(?P<level>{_BLOCKS}\.\d+)\.(?P<kind>[a-z]+)\.(?P<index>\d+)\.")
_CHANNELS = "channels and multipliers"
_IN_DIFFUSERS = {
    "channels": "diffusers.block_out_channels",
    _CHANNELS: "diffusers.block_out_channels",
    "multipliers": "diffusers.block_out_channels",
    "blocks_per_level": "diffusers.layers_per_block",
    "attention_resolutions": "diffusers.down_block_types and up_block_types",
    "scale_shift": "diffusers.resnet_time_scale_shift",
    "resample": "diffusers.downsample_type and upsample_type",
}


@dataclass(frozen=True)
class Difference:
    """A tensor in which a file and a network differ.

    Args:
        name: of the tensor, in the network's layout.
        found: its shape in the file; None if the file lacks it.
        wanted: its shape in the network; None if the network lacks it.
    """

    name: str
    found: Shape | None
    wanted: Shape | None

    def axis(self, number: int) -> bool:
        """Whether both have the tensor and differ in the length of an axis."""
        shapes = (self.found or (), self.wanted or ())
        return all(len(shape) > number for shape in shapes) and shapes[0][number] != shapes[1][number]

    @property
    def is_doubled(self) -> bool:
        """Whether one has twice as many rows as the other."""
        rows = sorted((shape or (0,))[0] for shape in (self.found, self.wanted))
        return rows[1] == 2 * rows[0] > 0


def deciding(difference: Difference, own: Names, theirs: Names, in_diffusers: bool = False) -> str:
    """The setting that decides a difference, by its name in a preset; empty if that cannot be said.

    Args:
        difference: the first tensor that differs.
        own: names of the network's tensors.
        theirs: names of the file's.
        in_diffusers: whether the U-Net is described by diffusers' own settings.
    """
    section = next((section for anchor, section in _ANCHORS.items() if anchor in own), "")
    if section == "conditioning":
        return "architecture.context_channels" if difference.axis(1) else "conditioning.classes"
    if difference.name == "text_projection.weight" and difference.axis(0):
        return "conditioning.pooled_channels"
    if section == "conditioning.t5":
        return section
    if section.startswith("conditioning."):
        return f"{section}.{_of_text(difference)}"
    if not section:
        return ""
    if len({any(name.startswith("quantize.") for name in names) for names in (own, theirs)}) == 2:
        setting = "kind"
    elif _LEVEL.match(difference.name) and (depth := _of_depth(own, theirs)):
        setting = depth
    elif difference.found is None or difference.wanted is None:
        setting = _of_presence(difference, section, own if difference.wanted is None else theirs)
    else:
        setting = _of_shape(difference, section)
    return f"{section}.{_IN_DIFFUSERS.get(setting, setting) if in_diffusers else setting}"


def _of_depth(own: Collection[str], theirs: Collection[str]) -> str:
    """What decides levels and blocks, if file and network have not as many."""
    levels, blocks = [], []
    for names in (own, theirs):
        matches = [match for name in names if (match := _LEVEL.match(name))]
        levels.append({match["level"] for match in matches})
        blocks.append({int(match["index"]) for match in matches if match["kind"] == "resnets"})
    if levels[0] != levels[1]:
        return "multipliers"
    return "blocks_per_level" if blocks[0] != blocks[1] else ""


def _of_text(difference: Difference) -> str:
    if "position_embedding" in difference.name and difference.axis(0):
        return "tokens"
    if ".mlp." in difference.name and difference.found is not None and difference.wanted is not None:
        return "channels" if difference.axis(0 if "fc2" in difference.name else 1) else "hidden_channels"
    is_missing = difference.found is None or difference.wanted is None
    return "layers" if is_missing else "channels"


def _of_shape(difference: Difference, section: str) -> str:
    """What decides a shape."""
    name, is_unet = difference.name, section == "architecture"
    if name == "add_embedding.linear_1.weight" and difference.axis(1):
        return "added_channels"
    if name.endswith("conv_in.weight") and difference.axis(1):
        outer = {"encoder.conv_in.weight": "image_channels", "decoder.conv_in.weight": "latent_channels"}
        return outer.get(name, "in_channels")
    if name.rpartition(".")[0].endswith("conv_out") and difference.axis(0):
        outer = {"encoder.conv_out": "latent_channels", "decoder.conv_out": "image_channels"}
        return outer.get(name.rpartition(".")[0], "in_channels")
    if name.startswith(("quant_conv.", "post_quant_conv.")):
        return "latent_channels"
    if name.startswith("quantize."):
        return "codes" if difference.axis(0) else "latent_channels"
    if ".time_emb_proj." in name and difference.is_doubled:
        return "scale_shift"
    if re.search(r"\.attn2\.to_[kv]\.", name) and difference.axis(1) and not difference.axis(0):
        return "context_channels"
    if len(difference.found or ()) != len(difference.wanted or ()):
        return "family" if is_unet else "kind"
    if name.startswith(
        (
            "time_embedding.",
            "conv_in.",
            "conv_norm_out.",
            "conv_out.",
            "encoder.conv_in.",
            "decoder.conv_norm_out.",
        )
    ):
        return "channels"
    return "multipliers" if is_unet else _CHANNELS


def _of_presence(difference: Difference, section: str, others: Collection[str]) -> str:
    """What decides whether there is such a tensor."""
    name, nothing = difference.name, "family" if section == "architecture" else "kind"
    match = _LEVEL.match(name)
    if match is None:
        return nothing
    level, kind = match["level"], match["kind"]
    of_kind = any(other.startswith(f"{level}.{kind}.") for other in others)
    if kind.endswith("samplers"):
        return "resample" if of_kind else "multipliers"
    if "conv_shortcut" in name:
        return "multipliers"
    return "attention_resolutions" if kind == "attentions" and not of_kind else nothing
