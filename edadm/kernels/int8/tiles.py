"""How an integer convolution is cut into blocks: as measured where that was done, else by a rule."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from edadm.errors import EdadmError

PROCESSORS = 132  # of an H100 or H200
LONG = 7680  # numbers of a sum, from which on it pays to add it up in parts


class Tiles(NamedTuple):
    """Sizes of a block of the output and of a step through the inner dimension, and how the GPU runs them.

    `splits` parts of the inner dimension are summed side by side, where the output has too few blocks for the
    GPU. `kind` is the kernel: `window` for any problem, in `convolution`; `pipelined` where the result
    is as large as the image, in `conv_wgmma`; `matrix` and `descriptor` for products of matrices, in
    `gemm`, through pointers or through tensor descriptors; `descriptor` for larger windows, in
    `conv_tma`. What a kernel cannot do goes to `window`.
    """

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int
    splits: int = 1
    kind: str = "window"


class Problem(NamedTuple):
    """A convolution as a GEMM: `rows` pixels of the output times `columns` output channels, over `side`^2 taps of `channels`."""

    rows: int
    columns: int
    channels: int
    side: int
    stride: int

    @property
    def is_matrix(self) -> bool:
        """Whether it is a product of matrices as they lie in memory; padding, of which there is none then, is not part of a problem."""
        return self.side == 1 and self.stride == 1

    def blocks(self, rows: int, columns: int) -> int:
        """Of such a size in the output."""
        return -(-self.rows // rows) * -(-self.columns // columns)

    @property
    def key(self) -> str:
        """Its name in a table; row counts between two powers of two share one."""
        return f"{_power(self.rows)}x{self.columns}x{self.channels}k{self.side}s{self.stride}"


def _power(x: int) -> int:
    return 1 << (x - 1).bit_length()


@cache
def measured() -> dict[str, Tiles]:
    """Tiles that were the fastest on an H100, by `Problem.key`; made by `edadm benchmark kernels --tiles`."""
    table = files("edadm.kernels.int8").joinpath("tiles_h100.json")
    return (
        {key: Tiles(*sizes) for key, sizes in json.loads(table.read_text()).items()}
        if table.is_file()
        else {}
    )


def adopt(path: Path) -> None:
    """From now on takes the tiles of a file by `edadm benchmark kernels --tiles` before those that come with the package.

    Raises:
        EdadmError: the file does not hold tiles.
    """
    try:
        measured().update({key: Tiles(*sizes) for key, sizes in json.loads(path.read_text()).items()})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise EdadmError(
            f"{path} holds no tiles ({error}); make it with `edadm benchmark kernels --tiles {path}`"
        ) from error


def tiles(problem: Problem) -> Tiles:
    """Block sizes: the measured ones, or large blocks where there are enough of them to fill a GPU of 132 processors."""
    return measured().get(problem.key) or by_rule(problem)


def by_rule(problem: Problem) -> Tiles:
    """Block sizes without a measurement: those that searches on an H100 mostly ended with (docs/integer.md)."""
    rows, columns, depth = problem.rows, problem.columns, _depth(problem)
    if columns <= 32:
        return Tiles(128, max(16, _power(columns)), depth, 4, 4)
    fast = _is_described(problem) and depth == 128
    if fast and problem.side > 1 and columns > 64:
        return _of_window(problem)
    if rows <= 512:
        return Tiles(32, 64, depth, 4, 5)
    if columns <= 64:
        return Tiles(128, 64, depth, 4, 4)
    if problem.blocks(128, 128) >= PROCESSORS:
        return Tiles(128, 128, depth, 4, 3, kind="descriptor" if fast else "window")
    return Tiles(64, 64, depth, 4, 4, kind="descriptor" if fast else "window")


def _of_window(problem: Problem) -> Tiles:
    """By rule, where operands can be fetched in blocks: those are as large as leaves work for all processors; else sums come in parts."""
    few = problem.blocks(64, 128)
    if problem.columns > 128 and problem.blocks(256, 128) >= 2 * PROCESSORS:
        return (
            Tiles(256, 128, 64, 8, 5, kind="pipelined")
            if problem.channels % 128
            else Tiles(256, 128, 128, 8, 4, kind="pipelined")
        )
    if problem.blocks(128, 128) >= 0.75 * PROCESSORS:
        return Tiles(128, 128, 128, 4, 3, kind="pipelined")
    if 2 * few <= PROCESSORS and problem.side**2 * problem.channels >= LONG:
        return Tiles(64, 128, 128, 4, 6, min(6, PROCESSORS // few), kind="pipelined")
    if problem.rows > 512 and problem.columns > 256:
        return Tiles(64, 128, 128, 4, 4, kind="pipelined")
    return (
        Tiles(64, 64, 256, 4, 4, kind="descriptor")
        if problem.channels >= 256
        else Tiles(64, 64, 128, 4, 4, kind="descriptor")
    )


def within(block: Tiles, memory: int) -> Tiles:
    """The same with fewer stages, or smaller blocks where operands of two do not fit: tiles were measured where there is much memory.

    Args:
        memory: bytes that a program may have.
    """
    while (stages := memory // ((block.rows + block.columns) * block.depth)) < 2:
        block = block._replace(rows=max(16, block.rows // 2), columns=max(16, block.columns // 2), warps=4)
    return block._replace(stages=min(block.stages, stages))


def candidates(problem: Problem) -> list[Tiles]:
    """Block sizes worth measuring, at most 30: a network poses some 20 to 50 problems, and a kernel takes about a second to compile.

    Where operands can be fetched in blocks, no other kernel was the fastest on an H100 in CIFAR-10's problems
    of more than 4096 rows.
    """
    if problem.columns <= 32:
        depth = _depth(problem)
        return [Tiles(rows, max(16, _power(problem.columns)), depth, 4, 4) for rows in (64, 128)]
    described = _described(problem) if _is_described(problem) else []
    tried = (
        described
        if described and problem.rows > 4096 and problem.channels >= 128
        else _windows(problem) + described
    )
    widest = max(64, 2 * problem.columns)
    return [
        one
        for one in dict.fromkeys(tried)
        if one.columns <= widest and (one.rows <= 64 or problem.rows > 1024)
    ]


def _is_described(problem: Problem) -> bool:
    """Whether kernels that fetch operands in blocks know it; they need a Hopper GPU, and padding that holds the number 0, as well."""
    return problem.stride == 1 and problem.channels % 16 == 0


def _depth(problem: Problem) -> int:
    return min(128, max(32, _power(problem.channels)))


def _windows(problem: Problem) -> list[Tiles]:
    depth = _depth(problem)
    sizes = [
        (128, 256, 8, 3),
        (128, 128, 8, 4),
        (128, 128, 4, 4),
        (128, 64, 4, 4),
        (64, 128, 4, 4),
        (64, 64, 4, 4),
        (32, 64, 4, 5),
    ]
    if not problem.is_matrix:  # two or three blocks at once on a processor, and the wide one upright
        sizes += [(256, 128, 8, 3), (128, 128, 8, 3), (128, 128, 4, 3), (64, 128, 4, 3)]
    tried = [Tiles(rows, columns, depth, warps, stages) for rows, columns, warps, stages in sizes]
    if depth == 128:
        tried.append(Tiles(128, 128, 64, 8, 4))
    if problem.channels % 128 == 64:  # half a step would be in vain
        tried += [Tiles(128, 256, 64, 8, 4), Tiles(128, 64, 64, 4, 5), Tiles(64, 128, 64, 4, 5)]
    steps = problem.side**2 * -(-problem.channels // depth)
    blocks = problem.blocks(64, 64)
    return tried + [
        Tiles(64, 64, depth, 4, 4, splits)
        for splits in (2, 4, 8)
        if blocks * splits <= 264 and steps >= 4 * splits
    ]


_PIPELINED = (
    (128, 256, 128, 8, 4), (256, 128, 128, 8, 4), (128, 128, 128, 4, 3), (128, 128, 128, 8, 3), (64, 128, 128, 4, 3),
    (64, 128, 128, 4, 4), (256, 128, 64, 8, 5), (128, 128, 64, 4, 4),
)  # fmt: skip


def _described(problem: Problem) -> list[Tiles]:
    """Their kernels know no channel count when they are compiled, so that many problems share them.

    Triton waits for a product of integers before it starts the next one (only fp32 sums run ahead), so most
    of these are blocks of which two or more run on a processor side by side; the last one waits half as
    often.
    """
    sizes = [
        (128, 256, 128, 8, 3),
        (256, 128, 128, 8, 3),
        (128, 128, 128, 8, 3),
        (128, 128, 128, 4, 3),
        (64, 256, 128, 4, 2),
    ]
    sizes += [(64, 128, 128, 4, 3), (64, 64, 128, 4, 4), (64, 64, 256, 4, 4), (64, 128, 256, 4, 2)]
    if problem.channels % 128:  # half a step would be in vain
        sizes += [(128, 256, 64, 8, 4), (128, 64, 64, 4, 5), (128, 128, 64, 4, 4)]
    fitting = [size for size in sizes if size[2] <= max(64, _power(problem.channels))]
    piped = [size for size in _PIPELINED if size[2] == 128 or problem.channels % 128]
    by_kind = {"descriptor": fitting, "pipelined": piped if problem.channels > 64 else []}
    tried = [Tiles(*size, kind=kind) for kind, sizes in by_kind.items() for size in sizes]
    blocks, steps = problem.blocks(64, 128), problem.side**2 * -(-problem.channels // 128)
    splits = [splits for splits in (2, 3, 4, 6) if blocks * splits <= 2 * PROCESSORS and steps >= 8 * splits]
    return tried + [Tiles(64, 128, 128, 4, 6, one, "pipelined") for one in splits]
