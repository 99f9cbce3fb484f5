"""Tiles that a search for the fastest measures."""

from __future__ import annotations

from edadm.kernels.int8.search import candidates
from edadm.kernels.int8.tiles import Problem


def test_candidates_are_distinct_and_hold_some_for_every_problem() -> None:
    for rows in (2, 500, 512_000):
        for columns in (4, 64, 1280):
            found = candidates(Problem(rows, columns, 320, 3, 1))
            assert len(found) == len(set(found)) > 0
            assert all(one.columns <= max(64, 2 * columns) and one.depth in (64, 128, 256) for one in found)


def test_kernels_are_tried_where_they_apply() -> None:
    def kinds(*problem: int) -> set[str]:
        return {one.kind for one in candidates(Problem(*problem))}

    assert kinds(65_536, 320, 320, 1, 1) == kinds(65_536, 320, 320, 3, 1) == {"descriptor", "pipelined"}
    assert (
        kinds(4_096, 320, 320, 1, 1) == kinds(4_096, 320, 320, 3, 1) == {"window", "descriptor", "pipelined"}
    )
    assert kinds(65_536, 320, 320, 3, 2) == kinds(65_536, 320, 4, 3, 1) == {"window"}
    assert {one.depth for one in candidates(Problem(65_536, 320, 320, 1, 1)) if one.kind == "descriptor"} == {
        64,
        128,
        256,
    }
    assert {one.depth for one in candidates(Problem(65_536, 320, 64, 1, 1)) if one.kind == "descriptor"} == {
        64
    }


def test_a_search_is_bounded() -> None:
    for rows in (2, 500, 65_536):
        for columns in (4, 320, 1280):
            for channels in (4, 320, 1280):
                for side in (1, 3):
                    assert len(candidates(Problem(rows, columns, channels, side, 1))) <= 30


def test_sums_are_divided_only_where_blocks_are_few_and_the_sum_is_long() -> None:
    def splits(*problem: int) -> set[int]:
        return {one.splits for one in candidates(Problem(*problem))}

    assert splits(128, 1280, 1280, 3, 1) == {1, 2, 3, 4, 6}  # 20 or 40 blocks, 90 steps
    assert splits(32, 256, 256, 3, 1) == {1, 2, 4}  # 4 blocks, 18 steps
    assert splits(2, 1280, 320, 1, 1) == {1}  # 3 steps
    assert splits(65_536, 320, 320, 3, 1) == {1}
