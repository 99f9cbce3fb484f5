"""Which kernel normalises groups of channels, and how programs share images, or rows of channels.

Choices are functions of numbers, as in `edadm.kernels.int8.products.launch`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from edadm.kernels.int8.device import Device
from edadm.kernels.int8.tiles import PROCESSORS, power_from

MEMORY = 1 << 16  # bytes of shared memory of a resident program: three on a processor of an H100
CHUNKS = 16  # at most, that are waited for one by one
VECTOR = 8  # channels of 16 bytes
# Triton learns of a size whether 16 divides it. Rows of other sizes are copied element by element, which no
# asynchronous copy of two bytes can be.
DIVISOR = 16
# Channels whose int8 numbers fill what memory writes at once; less takes longer than reading twice
NARROWEST = 32
WIDTHS = (64, 32, 128, 256, 16)  # channels of a program, the first of those that cost as much
ELEMENTS = 2048  # that a program reads at once
PROGRAMS = 4 * PROCESSORS  # an image is parted until there are as many
ROW_ELEMENTS = 4096  # of a program of layer normalisation


@dataclass(frozen=True)
class GroupNorm:
    """A group normalisation, as far as the choice of a kernel depends on it.

    Attributes:
        images: in the batch.
        pixels: of an image.
        channels: of an image.
        groups: of channels.
        before: channels of the first of two inputs; all of them where there is one.
        element_bytes: of the inputs.
        is_aligned: whether the inputs begin at multiples of 16 bytes.
    """

    images: int
    pixels: int
    channels: int
    groups: int
    before: int
    element_bytes: int = 2
    is_aligned: bool = True

    @property
    def size(self) -> int:
        """Channels of a group."""
        return self.channels // self.groups


@dataclass(frozen=True)
class GroupNormLaunch:
    """A kernel of group normalisation and its programs, each of which has some groups of an image.

    Attributes:
        kernel: `group_norm_resident`, or `group_norm_parts` where programs share an image.
        grid: programs of each axis.
        size: channels of a group.
        groups: of a program.
        width: channels that a program has room for.
        pixels: that are read at once.
        steps: how often a program reads as many; of the resident kernel, all of them wait in shared memory.
        warps: of a resident program.
    """

    kernel: str
    grid: tuple[int, ...]
    size: int
    groups: int
    width: int
    pixels: int
    steps: int
    warps: int = 0

    @property
    def sizes(self) -> dict[str, int]:
        """Compile-time constants that both kernels have."""
        return {"SIZE": self.size, "GROUPS": self.groups, "CHANNELS": self.width}


def choose_group_norm(problem: GroupNorm, device: Device, may_reside: bool = True) -> GroupNormLaunch:
    """The launch of a group normalisation: resident where some groups of an image fit shared memory.

    Args:
        problem: the normalisation.
        device: where it runs.
        may_reside: whether what fits shared memory is read once.
    """
    vectors = problem.channels % DIVISOR == 0 and problem.before % DIVISOR == 0 and problem.is_aligned
    resident = None
    if may_reside and device.has_async_copy and problem.element_bytes == 2 and vectors:
        resident = _resident(problem)
    return resident or _in_parts(problem)


def _resident(problem: GroupNorm) -> GroupNormLaunch | None:
    """The resident kernel's launch; None where images do not fit shared memory, or not in whole vectors."""
    size, pixels = problem.size, problem.pixels
    groups, width = groups_of_program(problem.images, problem.groups, size, MEMORY // (2 * pixels))
    elements, own = pixels * width, groups * size
    if 2 * elements > MEMORY or own % VECTOR or own < NARROWEST or width > 32 * VECTOR:
        return None
    warps = min(8, max(1, elements // 4096))
    at_once = min(pixels & -pixels, max(1, 64 * VECTOR * warps // width))
    chunks = pixels // at_once
    if at_once * width < 32 * VECTOR * warps or chunks > CHUNKS:
        return None
    grid = (problem.images * -(-problem.groups // groups),)
    return GroupNormLaunch("group_norm_resident", grid, size, groups, width, at_once, chunks, warps)


def _in_parts(problem: GroupNorm) -> GroupNormLaunch:
    """The launch of the two kernels that read an image twice, in parts, so that programs are many."""
    groups, width = groups_of_program(problem.images, problem.groups, problem.size)
    programs = problem.images * -(-problem.groups // groups)
    at_once = min(ELEMENTS // width, power_from(problem.pixels))
    all_steps = -(-problem.pixels // at_once)
    steps = -(-all_steps // min(all_steps, -(-PROGRAMS // programs)))
    grid = programs, -(-all_steps // steps)
    return GroupNormLaunch("group_norm_parts", grid, problem.size, groups, width, at_once, steps)


def groups_of_program(images: int, groups: int, size: int, widest: int | None = None) -> tuple[int, int]:
    """The groups of a program, and the channels that it has room for.

    Rows of them begin at 16 bytes, and their int8 numbers at 32 or 64 if that costs no more.

    Args:
        images: in the batch.
        groups: of an image.
        size: channels of a group.
        widest: most channels, unless a single group has more.
    """
    widths = [width for width in WIDTHS if width <= (widest or width)]
    fitting = [(count, width) for width in widths for count in range(1, min(groups, width // size) + 1)]
    fitting = fitting or [(1, power_from(size))]

    def cost(choice: tuple[int, int]) -> tuple[bool, int, int]:
        """Whole reads first, then room for channels in all programs, then whole writes.

        There is work for a quarter of the processors.
        """
        count, width = choice
        begins = math.gcd(count * size, 64)
        return begins % 8 > 0, max(PROCESSORS // 4, images * -(-groups // count)) * width, -begins

    return min(fitting, key=cost)


@dataclass(frozen=True)
class LayerNormLaunch:
    """The programs of layer normalisation.

    Attributes:
        grid: programs.
        rows: of a program.
        width: channels that it has room for.
    """

    grid: tuple[int, ...]
    rows: int
    width: int


def choose_layer_norm(rows: int, channels: int) -> LayerNormLaunch:
    """The launch of a layer normalisation of so many rows of channels."""
    width = power_from(channels)
    own = max(1, ROW_ELEMENTS // width)
    return LayerNormLaunch((-(-rows // own),), own, width)
