"""Whether the sizes of a network can be built: halvings, groups, heads, channels."""

from __future__ import annotations

from collections.abc import Iterator

from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.families import FAMILIES
from edadm.networks.settings.parts import Autoencoder, TextEncoder

LARGEST_SIDE = 16_384
WIDEST = 65_536
MOST_LEVELS = 12


def mistakes_in_unet(sizes: Architecture) -> Iterator[str]:
    """One sentence per size of a U-Net that does not fit the others.

    None for families whose sizes are written elsewhere.
    """
    if not FAMILIES[sizes.family].is_sized:
        return
    yield from _levels(sizes.multipliers, sizes.channels, sizes.norm_groups)
    if sizes.image_size > LARGEST_SIDE:
        yield f"image_size {sizes.image_size} is beyond any U-Net's; at most {LARGEST_SIDE} are taken"
        return
    halvings = len(sizes.multipliers) - 1
    if not 0 <= halvings < MOST_LEVELS:
        return
    if sizes.image_size % 2**halvings:
        yield (
            f"image_size {sizes.image_size} cannot be halved {halvings} times, as its {halvings + 1} levels "
            "do; "
            f"take a multiple of {2**halvings}, or fewer multipliers"
        )
        return
    heights = [sizes.image_size >> level for level in range(halvings + 1)]
    if absent := [side for side in sizes.attention_resolutions if side not in heights]:
        shown = ", ".join(map(str, heights))
        yield f"attention_resolutions: no feature map is {absent[0]} high; there are {shown}"
    yield from _heads(sizes, heights)


def _levels(multipliers: tuple[int, ...], channels: int, groups: int) -> Iterator[str]:
    if not multipliers:
        yield "multipliers: there is no level; write one number per level"
        return
    if len(multipliers) > MOST_LEVELS:
        yield (
            f"multipliers: {len(multipliers)} levels are beyond any network's; at most {MOST_LEVELS} are "
            "taken"
        )
    widths = {1: channels} | {multiplier: channels * multiplier for multiplier in multipliers}
    if (widest := max(widths.values())) > WIDEST:
        yield f"channels: a level has {widest} channels; at most {WIDEST} are taken"
    elif odd := [width for width in widths.values() if width % groups]:
        yield (
            f"norm_groups {groups} does not divide the {odd[0]} channels of a level; take a divisor of all, "
            f"such as {_divisor(widths)}"
        )


def _divisor(widths: dict[int, int]) -> int:
    """The largest number of groups up to 32 that divides all."""
    return max(groups for groups in range(1, 33) if not any(width % groups for width in widths.values()))


def _heads(sizes: Architecture, heights: list[int]) -> Iterator[str]:
    attended = [
        m
        for m, height in zip(sizes.multipliers, heights, strict=True)
        if height in sizes.attention_resolutions
    ]
    widths = dict.fromkeys(sizes.channels * multiplier for multiplier in (*attended, sizes.multipliers[-1]))
    for name in ("heads", "head_channels"):
        value = getattr(sizes, name)
        if value and (odd := [width for width in widths if width % value]):
            yield (
                f"{name} {value} does not divide the {odd[0]} channels of an attention; take a divisor of "
                "them"
            )


def mistakes_in_autoencoder(sizes: Autoencoder) -> Iterator[str]:
    """One sentence per size of an autoencoder that does not fit the others."""
    yield from _levels(sizes.multipliers, sizes.channels, sizes.norm_groups)


def mistakes_in_encoder(sizes: TextEncoder) -> Iterator[str]:
    """One sentence per size of a text encoder that does not fit the others."""
    if sizes.channels % sizes.heads:
        yield f"heads {sizes.heads} does not divide the {sizes.channels} channels; take a divisor of them"
