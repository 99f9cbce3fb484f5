"""Which kernel computes a product of int8 numbers, with which tiles and how many programs.

The choice is a function of numbers: of the problem, of how its operands lie in memory, and of the device.
Nothing is tried, and no kernel refuses what was chosen for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from edadm.kernels.int8.device import SHARED_BYTES, Device
from edadm.kernels.int8.tiles import Problem, Tiles, tiles, within

GROUP = 8  # row tiles that share their weights in the cache
ALIGNMENT = 16  # bytes at which a descriptor's memory begins, and elements that its rows are a multiple of
LONGEST_SIDE = 256  # of a box of pixels that a descriptor fetches
REGISTERS = 65_536  # of a processor of an H100
NARROWEST = 16  # columns of a product
MANY = 2048  # rows, from which on large tiles are enough for all processors

Box = tuple[int, int, int]


@dataclass(frozen=True)
class Layout:
    """How the operands of a convolution lie in memory, as far as the choice of a kernel depends on it.

    Attributes:
        height: of the input image, in pixels.
        width: of the input image, in pixels.
        padding: pixels on all sides.
        pads_zero: whether padding, if there is any, holds the number 0.
        is_aligned: whether input and weight, and their rows as matrices, begin where descriptors can read.
        residual_is_aligned: likewise of the residual; true where there is none.
        result_bytes: of an element of the result.
    """

    height: int = 1
    width: int = 1
    padding: int = 0
    pads_zero: bool = True
    is_aligned: bool = True
    residual_is_aligned: bool = True
    result_bytes: int = 2


@dataclass(frozen=True)
class Launch:
    """A kernel, what it is compiled with, and its programs.

    Attributes:
        kernel: `implicit_gemm`, `gemm`, `gemm_tma`, `conv_tma`, `conv_wgmma`, `geglu` or `geglu_tma`.
        tiles: sizes, warps, stages and splits that the kernel runs with.
        grid: programs of each axis.
        box: images, height and width of the box of pixels that a row tile is, where descriptors fetch boxes.
    """

    kernel: str
    tiles: Tiles
    grid: tuple[int, ...]
    box: Box | None = None


def choose(problem: Problem, layout: Layout, device: Device, wanted: Tiles | None = None) -> Launch:
    """The launch of a convolution or linear layer.

    Args:
        problem: the convolution as a GEMM.
        layout: of its operands.
        device: where it runs.
        wanted: tiles, and the kernel of their kind if it can compute the problem; those of `tiles` if None.
    """
    wanted = wanted or tiles(problem)
    box = _box_of_descriptors(problem, layout, device, wanted.rows)
    if wanted.kind == "pipelined" and box and device.has_wgmma:
        return Launch("conv_wgmma", wanted, (_blocks(problem, wanted), wanted.splits), box)
    if wanted.kind in ("matrix", "descriptor") and problem.is_matrix and not layout.padding:
        return _gemm(problem, layout, device, wanted)
    if wanted.kind == "descriptor" and box and layout.residual_is_aligned:
        return Launch("conv_tma", wanted, (_blocks(problem, wanted),), box)
    tile = within(wanted, device.shared_bytes)
    return Launch("implicit_gemm", tile, (_blocks(problem, tile), tile.splits))


def _blocks(problem: Problem, tile: Tiles) -> int:
    """The number of tiles that cover the output."""
    return problem.blocks(tile.rows, tile.columns)


def _gemm(problem: Problem, layout: Layout, device: Device, wanted: Tiles) -> Launch:
    """The launch of a product of matrices as they lie in memory, by a fixed number of programs."""
    tile = within(wanted, device.shared_bytes)
    described = tile.kind == "descriptor" and can_describe(problem.columns, layout.is_aligned, device)
    grid = (programs(tile, _blocks(problem, tile), device),)
    stages = stages_beside(tile, layout.result_bytes)
    return Launch("gemm_tma" if described else "gemm", tile._replace(stages=stages), grid)


def _box_of_descriptors(problem: Problem, layout: Layout, device: Device, rows: int) -> Box | None:
    """The box of pixels that a row tile is, if descriptors can read the input and write the result."""
    keeps_size = problem.stride == 1 and 2 * layout.padding + 1 == problem.side
    if not keeps_size or not (layout.pads_zero or layout.padding == 0):
        return None
    if not can_describe(problem.columns, layout.is_aligned, device):
        return None
    return box(rows, layout.height, layout.width)


def can_describe(columns: int, is_aligned: bool, device: Device) -> bool:
    """Whether descriptors can read a GEMM's operands and write its result of so many columns."""
    return device.has_tma and is_aligned and columns % ALIGNMENT == 0


def box(rows: int, height: int, width: int) -> Box | None:
    """The box of that many pixels, row after row of an image: images, height and width.

    None where such boxes do not fill images of this size.
    """
    wide = min(rows, width)
    high = min(rows // wide, height)
    if width % wide or height % high or rows % (wide * high) or wide > LONGEST_SIDE:
        return None
    return rows // (wide * high), high, wide


def programs(tile: Tiles, blocks: int, device: Device) -> int:
    """How many programs share the tiles of the output: as many as the GPU holds at once.

    Registers and shared memory limit them.
    """
    by_registers = REGISTERS // (2 * tile.rows * tile.columns)  # as many again for everything else
    step = (tile.rows + tile.columns) * tile.depth
    by_memory = SHARED_BYTES // (tile.stages * step + tile.rows * tile.columns)
    return min(blocks, device.processors * max(1, min(by_registers, by_memory)))


def stages_beside(tile: Tiles, result_bytes: int) -> int:
    """The tile's stages, or as many as fit into shared memory beside a result of such elements."""
    # or half of it to write, and half of a residual
    room = SHARED_BYTES - 1024 - tile.rows * tile.columns * result_bytes
    return max(1, min(tile.stages, room // ((tile.rows + tile.columns) * tile.depth)))


def choose_geglu(
    rows: int, columns: int, is_aligned: bool, device: Device, wanted: Tiles | None = None
) -> Launch:
    """The launch of a linear layer with GEGLU; value and gate have `tiles.columns` columns each.

    Args:
        rows: of the input.
        columns: of the result, half of the layer's.
        is_aligned: see `Layout`.
        device: where it runs.
        wanted: tiles, value and gate having half of the columns each; if None, those that were the fastest on
            an H100 for Stable Diffusion's layers at batches of 2 and 16.
    """
    wanted = wanted or Tiles(128 if rows >= MANY else 64, 128, 128, 4, 3, kind="descriptor")
    tile = within(wanted, device.shared_bytes)
    half = max(NARROWEST, tile.columns // 2)
    described = tile.kind in ("descriptor", "pipelined") and can_describe(columns, is_aligned, device)
    blocks = -(-rows // tile.rows) * -(-columns // half)
    grid = (programs(tile, blocks, device),)
    return Launch("geglu_tma" if described else "geglu", tile._replace(columns=half), grid)
