"""How programs share a group normalisation in fp32.

That does not depend on the number of images, so that a row has the same bits in every batch.
"""

from __future__ import annotations

from dataclasses import dataclass

WIDTHS = (32, 64, 128, 256)  # channels of a program
ELEMENTS = 8192  # that a program reads at once
SECTOR = 8  # fp32 numbers that memory reads and writes together
WARPS = 8


@dataclass(frozen=True)
class GroupNormLaunch:
    """The programs of a group normalisation, each of which has some groups of an image.

    Attributes:
        programs: of an image.
        groups: of a program.
        width: channels that it has room for.
        pixels: that it reads at once.
    """

    programs: int
    groups: int
    width: int
    pixels: int


def _power_from(x: int) -> int:
    """The smallest power of two that is at least `x`."""
    return 1 << (x - 1).bit_length()


def choose_group_norm(pixels: int, channels: int, groups: int) -> GroupNormLaunch:
    """The launch for images of so many pixels: whole sectors first, then the fewest idle lanes."""
    size = channels // groups
    counts = [(count, width) for width in WIDTHS for count in range(1, min(groups, width // size) + 1)]

    def cost(choice: tuple[int, int]) -> tuple[bool, int, int]:
        count, width = choice
        return count * size % SECTOR > 0 and count < groups, -(-groups // count) * width, width

    count, width = min(counts or [(1, _power_from(size))], key=cost)
    return GroupNormLaunch(
        -(-groups // count), count, width, max(1, min(_power_from(pixels), ELEMENTS // width))
    )
