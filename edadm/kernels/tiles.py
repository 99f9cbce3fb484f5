"""How an integer convolution is cut into blocks: as measured where that was done, else by a rule."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Tiles(NamedTuple):
    """Sizes of a block of the output and of a step through the inner dimension, and how the GPU runs them."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


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
    most = 2 * problem.columns
    tried = [Tiles(r, c, depth, w, s) for r, c, w, s in sizes if c <= max(64, most) and (r <= 64 or problem.rows > 1024)]
    return tried + ([Tiles(128, 128, 64, 8, 4)] if depth == 128 and problem.rows > 1024 else [])
