"""Stages that are killed at any moment: the same command again ends with the bytes of an undisturbed run."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from .children import at_change, die, run
from .conftest import Whole, contents

SEED = 14
LONG = 50


def moments(whole: Whole, count: int) -> list[tuple[int, int]]:
    """Stages and numbers of changes, drawn evenly over stages; all stages are among them if there is room."""
    draw = random.Random(SEED)
    order = draw.sample(range(len(whole.stages)), len(whole.stages))
    chosen = [order[at % len(order)] for at in range(count)]
    return [(index, draw.randint(1, whole.changes[index])) for index in chosen]


def assert_survives(whole: Whole, folder: Path, index: int, change: int, name: signal.Signals) -> None:
    stage = whole.stages[index]
    whole.before(index, folder)
    status, said = run(stage.argv, folder, at_change(change, die(name)))
    assert status == (130 if name == signal.SIGINT else -name), (stage, change, said)
    status, again = run(stage.argv, folder)
    assert status == 0, (stage, change, again)
    expected, found = whole.after(index), contents(folder)
    assert sorted(found) == sorted(expected), (stage, change)
    assert [name for name in expected if found[name] != expected[name]] == [], (stage, change)


@pytest.mark.parametrize(
    "name",
    [
        "select-calibration",
        "extract-features",
        "evaluate",
        "report",
        pytest.param("reconstruct", marks=pytest.mark.long),
    ],
)
def test_a_killed_stage_leaves_no_trace(name: str, whole: Whole, tmp_path: Path) -> None:
    index = whole.index(name)
    change = random.Random(f"{SEED} {name}").randint(1, whole.changes[index])
    assert_survives(whole, tmp_path, index, change, signal.SIGKILL)


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_terminated_and_an_interrupted_stage_leave_no_trace(
    name: signal.Signals, whole: Whole, tmp_path: Path
) -> None:
    index = whole.index("generate")
    assert_survives(whole, tmp_path, index, whole.changes[index] * 2 // 3, name)


@pytest.mark.long
def test_fifty_kills_over_all_stages(whole: Whole, tmp_path: Path) -> None:
    for number, (index, change) in enumerate(moments(whole, LONG)):
        assert_survives(whole, tmp_path / str(number), index, change, signal.SIGKILL)
