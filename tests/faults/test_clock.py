"""The clock was set back, or dates of files are others: results are the same, and no input stays newer than what is made from it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from .children import run
from .conftest import Whole, contents

AHEAD = 7200


@pytest.mark.parametrize("name", ["evaluate", pytest.param("report", marks=pytest.mark.long)])
def test_inputs_dated_ahead_are_dated_now(name: str, whole: Whole, tmp_path: Path) -> None:
    index = whole.index(name)
    folder = whole.before(index, tmp_path)
    files = [path for path in folder.rglob("*") if path.is_file()]
    for path in files:
        os.utime(path, (time.time() + AHEAD,) * 2)
    status, said = run(whole.stages[index].argv, folder)
    assert status == 0, said
    assert "samples/0.npy was dated 2 h ahead, so the clock was set back; it is dated now" in said
    made = min((folder / output).stat().st_mtime for output in whole.stages[index].outputs)
    read = [word.partition("=")[2] or word for word in whole.stages[index].words]
    inputs = [
        folder / word
        for word in read
        if word.endswith((".npy", ".json")) and word not in whole.stages[index].outputs
    ]
    inputs += folder.glob("toy/**/metrics.json") if name == "report" else []
    assert len(inputs) > 1
    assert max(path.stat().st_mtime for path in inputs) <= made
    expected, found = whole.after(index), contents(folder)
    assert [name for name in expected if found.get(name) != expected[name]] == []


@pytest.mark.long
def test_dates_of_the_past_change_nothing(whole: Whole, tmp_path: Path) -> None:
    index = whole.index("set-ranges")
    folder = whole.before(index, tmp_path)
    for path in folder.rglob("*"):
        os.utime(path, (0, 0))
    status, said = run(whole.stages[index].argv, folder)
    assert status == 0, said
    expected, found = whole.after(index), contents(folder)
    assert [name for name in expected if found.get(name) != expected[name]] == []
