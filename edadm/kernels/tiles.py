"""How an integer convolution is cut into blocks: as measured where that was done, else by a rule."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Tiles(NamedTuple):
    """Sizes of a block of the output and of a step through the inner dimension, and how the GPU runs them.

    `splits` parts of the inner dimension are summed side by side, where the output has too few blocks for the GPU.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    splits: int = 1


class Problem(NamedTuple):
    """A convolution as a GEMM: `rows` pixels of the output times `columns` output channels, over `side`^2 taps of `channels`."""

    rows: int
    columns: int
    channels: int
    side: int
    stride: int

    @property
    def key(self) -> str:
        """Its name in a table; row counts between two powers of two share one."""
        return f"{_power(self.rows)}x{self.columns}x{self.channels}k{self.side}s{self.stride}"


def _power(x: int) -> int:
    return 1 << (x - 1).bit_length()


@cache
def measured() -> dict[str, Tiles]:
    """Tiles that were the fastest on an H100, by `Problem.key`; made by `edadm benchmark kernels --tiles`."""
    table = files("edadm.kernels").joinpath("tiles_h100.json")
    return {key: Tiles(*sizes) for key, sizes in json.loads(table.read_text()).items()} if table.is_file() else {}


def tiles(problem: Problem) -> Tiles:
    """Block sizes: the measured ones, or large blocks where there are enough of them to fill a GPU of 132 processors."""
    return measured().get(problem.key) or by_rule(problem)


def by_rule(problem: Problem) -> Tiles:
    """Block sizes without a measurement."""
    rows, columns = problem.rows, problem.columns
    depth = min(128, max(32, _power(problem.channels)))
    if columns <= 32:
        return Tiles(128, max(16, _power(columns)), depth, 4, 4)
    for candidate in (Tiles(128, 256, depth, 8, 3), Tiles(128, 128, depth, 8, 4), Tiles(128, 64, depth, 4, 4)):
        blocks = -(-rows // candidate.rows) * -(-columns // candidate.columns)
        if columns % candidate.columns == 0 and blocks >= 132:
            return candidate
    return Tiles(64, 64, depth, 4, 4)


def candidates(problem: Problem) -> list[Tiles]:
    """Block sizes worth measuring."""
    depth = min(128, max(32, _power(problem.channels)))
    if problem.columns <= 32:
        return [Tiles(rows, max(16, _power(problem.columns)), depth, 4, 4) for rows in (64, 128)]
    sizes = [(128, 256, 8, 3), (128, 128, 8, 4), (128, 128, 4, 4), (128, 64, 4, 4), (64, 128, 4, 4), (64, 64, 4, 4), (32, 64, 4, 5)]
    tried = [Tiles(rows, columns, depth, warps, stages) for rows, columns, warps, stages in sizes]
    if depth == 128:
        tried.append(Tiles(128, 128, 64, 8, 4))
    if problem.channels % 128 == 64:  # half a step would be in vain
        tried += [Tiles(128, 256, 64, 8, 4), Tiles(128, 64, 64, 4, 5), Tiles(64, 128, 64, 4, 5)]
    steps = problem.side**2 * -(-problem.channels // depth)
    blocks = -(-problem.rows // 64) * -(-problem.columns // 64)
    tried += [Tiles(64, 64, depth, 4, 4, splits) for splits in (2, 4, 8) if blocks * splits <= 264 and steps >= 4 * splits]
    widest = max(64, 2 * problem.columns)
    return [one for one in dict.fromkeys(tried) if one.columns <= widest and (one.rows <= 64 or problem.rows > 1024)]
