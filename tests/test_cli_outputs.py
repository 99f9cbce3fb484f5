"""What no result could be written to is refused by every command before it does anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer import Context
from typer.main import get_command

from edadm.artifacts import PlaceError
from edadm.cli import app_with

from .test_cli import edadm

WRITTEN = {"--output", "--losses", "--summary", "--progress", "--state", "--checkpoint", "--tiles"}
FOLDERS = {
    ("collect-trajectories", "--output"),
    ("reconstruct-part", "--output"),
    ("card", "--output"),
    ("quantize", "--output"),
    ("collect-trajectories", "--progress"),
    ("reconstruct-part", "--progress"),
    ("reconstruct", "--progress"),
}
OTHERS = {
    ("export", "--output"),  # a file or a folder, by its format; it must not be there at all
    ("integer", "--tiles"),  # is read
}


def commands(group: Any) -> Iterator[Any]:
    for command in group.commands.values():
        yield from commands(command) if hasattr(command, "commands") else [command]


WHERE = [
    pytest.param(command, option, id=f"{command.name} {option.opts[0]}")
    for command in commands(get_command(app_with()))
    for option in command.params
    if WRITTEN & set(option.opts) and (command.name, option.opts[0]) not in OTHERS
]


@pytest.mark.parametrize(("command", "option"), WHERE)
def test_a_place_where_nothing_can_be_written_is_refused(command: Any, option: Any, tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(PlaceError) as caught:
            option.process_value(Context(command), path)
        return str(caught.value)

    (tmp_path / "file").touch()
    if (command.name, option.opts[0]) in FOLDERS:
        assert refused(tmp_path / "file") == f"{tmp_path}/file is a file; name the folder to write"
    else:
        assert refused(tmp_path) == f"{tmp_path} is a folder; name the file to write, there or elsewhere"
    assert "since a file lies where a folder belongs" in refused(tmp_path / "file" / "x" / "y")
    assert option.process_value(Context(command), tmp_path / "x" / "y") == tmp_path / "x" / "y"


def test_all_commands_that_write_are_among_them() -> None:
    names = {"convert-checkpoint", "evaluate", "generate", "report", "download", "classifier", "families"}
    assert names < {case.values[0].name for case in WHERE}
    assert len(WHERE) > 25


def test_scores_for_a_folder_are_refused_before_anything_is_scored(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 3, 32, 32), dtype="uint8"))
    (tmp_path / "scores").mkdir()
    options = ("--evaluation", "{}", "--output", tmp_path / "scores")
    assert edadm("evaluate", tmp_path / "a.npy", *options) == 2
    assert capfd.readouterr().err == (
        f"edadm: {tmp_path}/scores is a folder; name the file to write, there or elsewhere\n"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npy", "scores"]
