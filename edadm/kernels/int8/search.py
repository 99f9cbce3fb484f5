"""Tiles that a search measures for a problem."""

from __future__ import annotations

from edadm.kernels.int8.tiles import PROCESSORS, Problem, Tiles, fits_descriptors, power_from, step_depth

# rows, columns, warps, stages
_WINDOWS = (
    (128, 256, 8, 3), (128, 128, 8, 4), (128, 128, 4, 4), (128, 64, 4, 4), (64, 128, 4, 4), (64, 64, 4, 4),
    (32, 64, 4, 5),
)  # fmt: skip
# two or three tiles at once on a processor, and the wide one upright
_LARGE_WINDOWS = ((256, 128, 8, 3), (128, 128, 8, 3), (128, 128, 4, 3), (64, 128, 4, 3))
# rows, columns, depth, warps, stages
_DESCRIBED = (
    (128, 256, 128, 8, 3), (256, 128, 128, 8, 3), (128, 128, 128, 8, 3), (128, 128, 128, 4, 3),
    (64, 256, 128, 4, 2), (64, 128, 128, 4, 3), (64, 64, 128, 4, 4), (64, 64, 256, 4, 4),
    (64, 128, 256, 4, 2),
)  # fmt: skip
_HALF_STEPS = ((128, 256, 64, 8, 4), (128, 64, 64, 4, 5), (128, 128, 64, 4, 4))
_PIPELINED = (
    (128, 256, 128, 8, 4), (256, 128, 128, 8, 4), (128, 128, 128, 4, 3), (128, 128, 128, 8, 3),
    (64, 128, 128, 4, 3), (64, 128, 128, 4, 4), (256, 128, 64, 8, 5), (128, 128, 64, 4, 4),
)  # fmt: skip


def candidates(problem: Problem) -> list[Tiles]:
    """Tiles worth measuring, at most 30: a network poses 20 to 50 problems, a kernel compiles in a second.

    Where descriptors can fetch operands, no other kernel was the fastest on an H100 in CIFAR-10's problems of
    more than 4096 rows.
    """
    if problem.columns <= 32:
        depth = step_depth(problem)
        return [Tiles(rows, max(16, power_from(problem.columns)), depth, 4, 4) for rows in (64, 128)]
    described = _described(problem) if fits_descriptors(problem) else []
    alone = described and problem.rows > 4096 and problem.channels >= 128
    tried = described if alone else _windows(problem) + described
    widest = max(64, 2 * problem.columns)
    return [
        one
        for one in dict.fromkeys(tried)
        if one.columns <= widest and (one.rows <= 64 or problem.rows > 1024)
    ]


def _windows(problem: Problem) -> list[Tiles]:
    """Candidates for the kernel that computes any problem."""
    depth = step_depth(problem)
    sizes = _WINDOWS if problem.is_matrix else _WINDOWS + _LARGE_WINDOWS
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


def _described(problem: Problem) -> list[Tiles]:
    """Candidates for kernels that do not know their channels when compiled, so that problems share them.

    Triton waits for a product of integers before it starts the next one (only fp32 sums run ahead), so most
    of these are tiles of which two or more run on a processor side by side; the last one waits half as often.
    """
    half = problem.channels % 128  # half a step would be in vain
    sizes = _DESCRIBED + _HALF_STEPS if half else _DESCRIBED
    fitting = [size for size in sizes if size[2] <= max(64, power_from(problem.channels))]
    piped = [size for size in _PIPELINED if size[2] == 128 or half] if problem.channels > 64 else []
    tried = [Tiles(*size, kind="descriptor") for size in fitting]
    tried += [Tiles(*size, kind="pipelined") for size in piped]
    blocks, steps = problem.blocks(64, 128), problem.side**2 * -(-problem.channels // 128)
    splits = [splits for splits in (2, 3, 4, 6) if blocks * splits <= 2 * PROCESSORS and steps >= 8 * splits]
    return tried + [Tiles(64, 128, 128, 4, 6, one, "pipelined") for one in splits]
