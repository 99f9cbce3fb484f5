"""The undisturbed run that others are compared with."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .children import Preparation, count_changes, run
from .project import Stage, stages, write_presets

MEASURED = {"speed.json", ".speed.json.lock"}  # these hold times
SIDES = ("{}", "{}.made.json", ".{}.lock")


def contents(folder: Path) -> dict[str, bytes]:
    """All files but those that hold times."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in MEASURED)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@dataclass
class Whole:
    """The project after one undisturbed run, and how often each stage changed or opened a file."""

    folder: Path
    stages: list[Stage]
    changes: list[int]

    def before(self, index: int, folder: Path) -> Path:
        """A copy of what was there when a stage began."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        for stage in self.stages[index:]:
            for output in map(Path, stage.outputs):
                for side in SIDES:
                    remove(folder / output.parent / side.format(output.name))
        return folder

    def after(self, index: int) -> dict[str, bytes]:
        """What lies there when a stage has ended."""
        later = {
            str(Path(output).parent / side.format(Path(output).name))
            for stage in self.stages[index + 1 :]
            for output in stage.outputs
            for side in SIDES
        }
        found = contents(self.folder).items()
        return {name: content for name, content in found if not later & {name, *map(str, Path(name).parents)}}

    def index(self, name: str) -> int:
        """Where the last stage of that name stands."""
        return max(index for index, stage in enumerate(self.stages) if stage.name == name)


def remove(path: Path) -> None:
    """A file or folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter; those of pytest only their owner may."""
    folder = Path(tempfile.mkdtemp(prefix="edadm-faults-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def whole(open_folder: Path) -> Whole:
    """The project after an undisturbed run; leave it as it is."""
    folder = open_folder / "whole"
    folder.mkdir()
    write_presets(folder)
    changes = []
    for stage in stages():
        status, said = run(stage.argv, folder, *counting(folder.parent / "count"))
        assert status == 0, said
        changes.append(int((folder.parent / "count").read_text()))
    return Whole(folder, stages(), changes)


def counting(file: Path) -> tuple[Preparation]:
    """Writes how often the command changed or opened a file, into another folder."""

    def prepare() -> None:
        handle = os.open(file, os.O_CREAT | os.O_TRUNC | os.O_RDWR)
        count_changes(lambda count: os.pwrite(handle, b"%d" % count, 0))

    return (prepare,)
