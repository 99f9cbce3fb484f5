"""Names of a network's layers and units, told from its sizes.

So a pattern that matches none of them is found before torch is imported.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase

from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.families import FAMILIES

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
_TRANSFORMER = (
    *(f"attn1.{name}" for name in ATTENTION),
    *FEED_FORWARD,
    *(f"attn2.{name}" for name in ATTENTION),
)
ADAPTIVE_BLOCK = ("norm1.linear", *(f"attn1.{name}" for name in ATTENTION), *FEED_FORWARD)
_STREAMS = ("to_q", "to_k", "to_v", "add_k_proj", "add_v_proj", "add_q_proj", "to_out.0", "to_add_out")
JOINT_BLOCK = (
    "norm1.linear",
    "norm1_context.linear",
    *(f"attn.{name}" for name in _STREAMS),
    *(f"attn2.{name}" for name in ATTENTION),
    *FEED_FORWARD,
    *(f"ff_context.{name.removeprefix('ff.')}" for name in FEED_FORWARD),
)
SHARED_ADAPTIVE_BLOCK = (  # as diffusers registers and runs it
    *(f"attn1.{name}" for name in ATTENTION),
    *(f"attn2.{name}" for name in ATTENTION),
    *FEED_FORWARD,
)
_AROUND: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {  # of transformers of patches
    "dit": (("pos_embed.proj",), ADAPTIVE_BLOCK, ("proj_out_1", "proj_out_2")),
    "pixart": (
        (
            *("pos_embed.proj", "adaln_single.linear"),
            *("caption_projection.linear_1", "caption_projection.linear_2"),
        ),
        SHARED_ADAPTIVE_BLOCK,
        ("proj_out",),
    ),
    "mmdit": (("pos_embed.proj", "context_embedder"), JOINT_BLOCK, ("norm_out.linear", "proj_out")),
}
_RESNET = ("conv1", "time_emb_proj", "conv2")

Units = dict[str, tuple[str, ...]]


def unit_layers(sizes: Architecture) -> Units | None:
    """Full names of the layers of every unit; None for families that are not described by sizes."""
    if sizes.family in _AROUND:
        return dict(_transformer_units(sizes))
    return dict(_units(sizes)) if FAMILIES[sizes.family].is_sized else None


def idle_patterns(patterns: Iterable[str], names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Patterns that match none of the names, each with what may have been meant."""
    names = list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            close = difflib.get_close_matches(pattern, names, n=1)
            yield (
                pattern,
                f"did you mean '{close[0]}'?"
                if close
                else f"names are such as '{names[0]}' and '{names[-1]}'",
            )


def _units(sizes: Architecture) -> Iterator[tuple[str, tuple[str, ...]]]:
    blocks, levels = sizes.blocks_per_level, len(sizes.multipliers)
    attends = [sizes.image_size >> level in sizes.attention_resolutions for level in range(levels)]
    widths = [sizes.channels * multiplier for multiplier in sizes.multipliers]
    yield from map(_layer, ("time_embedding.linear_1", "time_embedding.linear_2", "conv_in"))
    for level in range(levels):
        place, before = f"down_blocks.{level}", widths[max(0, level - 1)]
        yield from _level(
            sizes,
            place,
            [(before if block == 0 else widths[level]) != widths[level] for block in range(blocks)],
            attends[level],
        )
        if level < levels - 1:
            yield from _resampling(sizes, f"{place}.downsamplers.0")
    yield from _level(sizes, "mid_block", [False, False], True, attentions=1)
    for index, level in enumerate(reversed(range(levels))):
        yield from _level(sizes, f"up_blocks.{index}", [True] * (blocks + 1), attends[level])
        if level:
            yield from _resampling(sizes, f"up_blocks.{index}.upsamplers.0")
    yield _layer("conv_out")


def _transformer_units(sizes: Architecture) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Those of a transformer of patches."""
    first, inner, last = _AROUND[sizes.family]
    yield from map(_layer, first)
    for block in range(sizes.blocks or 0):
        place = f"transformer_blocks.{block}"
        yield place, tuple(f"{place}.{name}" for name in _inner(sizes, inner, block))
    yield from map(_layer, last)


def _inner(sizes: Architecture, names: tuple[str, ...], block: int) -> Iterator[str]:
    """The layers of a block: the last one of two streams makes nothing of the second, some attend twice."""
    absent: tuple[str, ...] = ()
    if sizes.family == "mmdit":
        absent += () if block in (sizes.dual_blocks or ()) else ("attn2.",)
        absent += ("attn.to_add_out", "ff_context.") if block + 1 == sizes.blocks else ()
    return (name for name in names if not name.startswith(absent))


def _layer(name: str) -> tuple[str, tuple[str, ...]]:
    return name, (name,)


def _resnet(place: str, shortcut: bool) -> tuple[str, tuple[str, ...]]:
    return place, tuple(f"{place}.{name}" for name in (*_RESNET, *(("conv_shortcut",) if shortcut else ())))


def _level(
    sizes: Architecture, place: str, shortcuts: list[bool], attends: bool, attentions: int | None = None
) -> Iterator[tuple[str, tuple[str, ...]]]:
    for block, shortcut in enumerate(shortcuts):
        yield _resnet(f"{place}.resnets.{block}", shortcut)
        if attends and block < (attentions or len(shortcuts)):
            yield from _attention(sizes, f"{place}.attentions.{block}")


def _attention(sizes: Architecture, place: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    if sizes.family != "transformer":
        yield place, tuple(f"{place}.{name}" for name in ATTENTION)
        return
    inner = f"{place}.transformer_blocks.0"
    yield _layer(f"{place}.proj_in")
    yield inner, tuple(f"{inner}.{name}" for name in _TRANSFORMER)
    yield _layer(f"{place}.proj_out")


def _resampling(sizes: Architecture, place: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield _resnet(place, False) if sizes.resample == "res_block" else _layer(f"{place}.conv")
