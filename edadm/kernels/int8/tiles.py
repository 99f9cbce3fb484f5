"""Tiles of integer convolutions and products of matrices: as measured where that was done, else by a rule."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from edadm.artifacts import reading
from edadm.errors import EdadmError

PROCESSORS = 132  # of an H100 or H200
LONG = 7680  # products of a sum, from which on it pays to add it up in parts


class Tiles(NamedTuple):
    """Sizes of a tile of the output and of a step through the inner dimension, and how a program runs them.

    `splits` parts of the inner dimension are summed side by side, where the output has too few tiles for the
    GPU. `kind` names the kernel that is wanted: `window` for `implicit_gemm`, which computes any problem;
    `pipelined` for `conv_wgmma`; `matrix` for `gemm`; `descriptor` for `gemm_tma`, or `conv_tma` where the
    window is larger. `edadm.kernels.int8.products.launch.choose` says which one runs.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    splits: int = 1
    kind: str = "window"


class Problem(NamedTuple):
    """A convolution as a GEMM: pixels of the output times output channels, over `side`^2 taps of `channels`.

    `rows` are pixels of the output, of all images, and `columns` output channels.
    """

    rows: int
    columns: int
    channels: int
    side: int
    stride: int

    @property
    def is_matrix(self) -> bool:
        """Whether the GEMM's operands lie in memory as they are multiplied, if there is no padding."""
        return self.side == 1 and self.stride == 1

    def blocks(self, rows: int, columns: int) -> int:
        """The number of tiles of that size that cover the output."""
        return -(-self.rows // rows) * -(-self.columns // columns)

    @property
    def key(self) -> str:
        """The problem's name in a table of tiles; row counts between two powers of two share one."""
        return f"{power_from(self.rows)}x{self.columns}x{self.channels}k{self.side}s{self.stride}"


def power_from(x: int) -> int:
    """The smallest power of two that is at least `x`."""
    return 1 << (x - 1).bit_length()


@cache
def measured() -> dict[str, Tiles]:
    """Tiles that were the fastest on an H100, by `Problem.key`; made by `edadm benchmark kernels --tiles`."""
    table = files("edadm.kernels.int8").joinpath("tiles_h100.json")
    return _parsed(table.read_text()) if table.is_file() else {}


def _parsed(table: str) -> dict[str, Tiles]:
    """The tiles of a table in JSON."""
    return {key: Tiles(*sizes) for key, sizes in json.loads(table).items()}


def adopt(path: Path) -> None:
    """Tiles of a file by `edadm benchmark kernels --tiles` come before those of the package from now on.

    Raises:
        EdadmError: the file does not hold tiles.
    """
    again = f"make it with `edadm benchmark kernels --tiles {path}`"
    with reading(path, again, EdadmError, "a table of tiles"):
        measured().update(_parsed(path.read_text()))


def tiles(problem: Problem) -> Tiles:
    """The measured tiles of a problem, or those of the rule."""
    return measured().get(problem.key) or by_rule(problem)


def by_rule(problem: Problem) -> Tiles:
    """Tiles without a measurement: those that searches on an H100 mostly ended with (docs/integer.md)."""
    rows, columns, depth = problem.rows, problem.columns, step_depth(problem)
    if columns <= 32:
        return Tiles(128, max(16, power_from(columns)), depth, 4, 4)
    fast = fits_descriptors(problem) and depth == 128
    if fast and problem.side > 1 and columns > 64:
        return _of_window(problem)
    if rows <= 512:
        return Tiles(32, 64, depth, 4, 5)
    if columns <= 64:
        return Tiles(128, 64, depth, 4, 4)
    kind = "descriptor" if fast else "window"
    if problem.blocks(128, 128) >= PROCESSORS:
        return Tiles(128, 128, depth, 4, 3, kind=kind)
    return Tiles(64, 64, depth, 4, 4, kind=kind)


def _of_window(problem: Problem) -> Tiles:
    """Tiles by rule where descriptors fetch operands: as large as leaves work for all processors.

    Where there is not enough work for all, long sums are added up in parts.
    """
    few = problem.blocks(64, 128)
    if problem.columns > 128 and problem.blocks(256, 128) >= 2 * PROCESSORS:
        if problem.channels % 128:
            return Tiles(256, 128, 64, 8, 5, kind="pipelined")
        return Tiles(256, 128, 128, 8, 4, kind="pipelined")
    if problem.blocks(128, 128) >= 0.75 * PROCESSORS:
        return Tiles(128, 128, 128, 4, 3, kind="pipelined")
    if 2 * few <= PROCESSORS and problem.side**2 * problem.channels >= LONG:
        return Tiles(64, 128, 128, 4, 6, min(6, PROCESSORS // few), kind="pipelined")
    if problem.rows > 512 and problem.columns > 256:
        return Tiles(64, 128, 128, 4, 4, kind="pipelined")
    return Tiles(64, 64, 256 if problem.channels >= 256 else 128, 4, 4, kind="descriptor")


def within(tile: Tiles, memory: int) -> Tiles:
    """The same tiles with fewer stages, or smaller ones where two steps do not fit shared memory.

    Tiles were measured where there is much memory.

    Args:
        tile: as wanted.
        memory: bytes that a program may have.
    """
    while (stages := memory // ((tile.rows + tile.columns) * tile.depth)) < 2:
        tile = tile._replace(rows=max(16, tile.rows // 2), columns=max(16, tile.columns // 2), warps=4)
    return tile._replace(stages=min(tile.stages, stages))


def fits_descriptors(problem: Problem) -> bool:
    """Whether tensor descriptors can fetch a problem's operands, given the device and the memory for it."""
    return problem.stride == 1 and problem.channels % 16 == 0


def step_depth(problem: Problem) -> int:
    """Input channels of a step through the inner dimension."""
    return min(128, max(32, power_from(problem.channels)))
