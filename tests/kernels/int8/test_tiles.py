"""How integer convolutions are cut into blocks."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from edadm.errors import EdadmError
from edadm.kernels.int8 import tiles as module
from edadm.kernels.int8.tiles import Problem, Tiles, adopt, by_rule, measured, tiles, within


def test_problems_of_nearly_as_many_rows_share_a_name() -> None:
    key = Problem(512_000, 128, 128, 3, 1).key
    assert key == "524288x128x128k3s1" == Problem(270_000, 128, 128, 3, 1).key
    assert (
        len(
            {
                key,
                Problem(512_000, 128, 128, 3, 2).key,
                Problem(512_000, 128, 128, 1, 1).key,
                Problem(600_000, 128, 128, 3, 1).key,
            }
        )
        == 4
    )


def test_large_problems_get_large_blocks_and_few_rows_small_ones() -> None:
    assert by_rule(Problem(512_000, 256, 256, 3, 1)) == Tiles(256, 128, 128, 8, 4, kind="pipelined")
    assert by_rule(Problem(65_536, 320, 960, 3, 1)) == Tiles(
        256, 128, 64, 8, 5, kind="pipelined"
    )  # 7.5 times 128 channels
    assert by_rule(Problem(512_000, 128, 256, 3, 1)) == Tiles(128, 128, 128, 4, 3, kind="pipelined")
    assert by_rule(Problem(512_000, 256, 256, 1, 1)) == Tiles(128, 128, 128, 4, 3, kind="descriptor")
    assert by_rule(Problem(128_000, 256, 256, 3, 2)) == Tiles(128, 128, 128, 4, 3)
    assert by_rule(Problem(512_000, 128, 3, 3, 1)) == Tiles(128, 128, 32, 4, 3)
    assert by_rule(Problem(1024, 1280, 1280, 3, 1)) == Tiles(64, 128, 128, 4, 4, kind="pipelined")
    assert by_rule(Problem(128, 1280, 1280, 3, 1)) == Tiles(
        64, 128, 128, 4, 6, 6, kind="pipelined"
    )  # 20 blocks, six parts of a long sum
    assert by_rule(Problem(512, 256, 256, 3, 1)) == Tiles(64, 64, 256, 4, 4, kind="descriptor")
    assert by_rule(Problem(512, 256, 512, 1, 1)) == Tiles(32, 64, 128, 4, 5)
    assert by_rule(Problem(16_384, 4, 320, 3, 1)).columns == 16


def test_the_rule_names_the_kernel_that_most_searches_found() -> None:
    problems = [Problem(*(int(part) for part in re.split("[xks]", key))) for key in measured()]
    same = [tiles(problem).kind == by_rule(problem).kind for problem in problems]
    assert len(problems) > 60
    assert sum(same) >= 0.7 * len(problems)


def test_measured_tiles_come_before_the_rule() -> None:
    problem = Problem(12_345, 48, 96, 3, 1)
    measured()[problem.key] = Tiles(32, 32, 32, 4, 2)
    try:
        assert tiles(problem) == Tiles(32, 32, 32, 4, 2)
    finally:
        del measured()[problem.key]
    assert tiles(problem) == by_rule(problem)


def test_tiles_of_a_file_come_before_those_of_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = {"old": Tiles(64, 64, 64, 4, 4)}
    monkeypatch.setattr(module, "measured", lambda: table)
    problem = Problem(12_345, 48, 96, 1, 1)
    (tmp_path / "tiles.json").write_text(
        json.dumps({problem.key: [32, 32, 32, 4, 2, 1, "descriptor"], "old": [16, 16, 32, 4, 2]})
    )
    adopt(tmp_path / "tiles.json")
    assert tiles(problem) == Tiles(32, 32, 32, 4, 2, kind="descriptor")
    assert table["old"] == Tiles(16, 16, 32, 4, 2)


@pytest.mark.parametrize("content", ["[1]", "{", '{"a": 3}', '{"a": [1]}', None])
def test_other_files_hold_no_tiles(content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "tiles.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(
        EdadmError,
        match=r"cannot be read as a table of tiles .*; make it with `edadm benchmark kernels --tiles",
    ):
        adopt(path)


def test_tiles_fit_a_processor_with_less_memory() -> None:
    large = Tiles(128, 256, 128, 8, 4, kind="pipelined")
    assert within(large, 227 * 1024) == large
    assert within(large, 163 * 1024) == large._replace(stages=3)
    assert within(large, 99 * 1024) == large._replace(stages=2)
    assert within(large, 64 * 1024) == large._replace(rows=64, columns=128, warps=4, stages=2)
    for one in measured().values():
        assert within(one, 227 * 1024) == one  # what was measured is what runs
        small = within(one, 48 * 1024)
        assert 2 <= small.stages <= one.stages
        assert small.stages * (small.rows + small.columns) * small.depth <= 48 * 1024
