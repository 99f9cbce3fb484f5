"""Arguments by file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edadm.config.inputs.arguments import expanded, in_file
from edadm.errors import EdadmError

ARGUMENTS = ["two words", "--option=ä, 'quoted'", "", "@no file", 'a\nb"']


def test_what_was_put_in_a_file_comes_out_in_its_place(tmp_path: Path) -> None:
    told = in_file(ARGUMENTS, tmp_path / "arguments")
    assert told == f"@{next((tmp_path / 'arguments').iterdir())}"
    assert expanded(["report", told, "--output", "@scratch/x"]) == [
        "report",
        *ARGUMENTS,
        "--output",
        "@scratch/x",
    ]
    Path(told[1:]).write_text("[")  # damaged
    assert expanded([in_file(ARGUMENTS, tmp_path / "arguments")]) == ARGUMENTS


def test_equal_arguments_are_one_file_and_others_another(tmp_path: Path) -> None:
    first = in_file(["a", "b"], tmp_path)
    before = Path(first[1:]).stat().st_mtime_ns
    assert in_file(("a", "b"), tmp_path) == first
    assert Path(first[1:]).stat().st_mtime_ns == before
    assert in_file(["a b"], tmp_path) != first
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("held", "sentence"),
    [
        (None, "cannot be read: No such file or directory; give them without @"),
        ("--a", "cannot be read: it is not JSON; give them without @"),
        ('{"a": 1}', "should hold arguments as a JSON list of strings; give them without @"),
        ("[1]", "should hold arguments as a JSON list of strings; give them without @"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, held: str | None, sentence: str) -> None:
    if held is not None:
        (tmp_path / "some.json").write_text(held)
    with pytest.raises(EdadmError, match=sentence):
        expanded([f"@{tmp_path / 'some.json'}"])


def test_a_command_takes_more_than_a_command_line_can_hold(tmp_path: Path) -> None:
    """What is told reaches the parser: the sentence about a configuration of 300 KB names its last key."""
    told = in_file(["--config", f'{{"runs": [], "results": "{"r" * 300_000}", "resluts": 1}}'], tmp_path)
    command = [sys.executable, "-m", "edadm", "report", "--results=.", "--output=page.html", told]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "resluts: there is no such setting; did you mean 'results'?" in done.stderr
