"""The undisturbed run that others are compared with."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest

from edadm.config.fingerprint import stage_fingerprint
from edadm.deferred import defer

from .children import count_changes, run
from .project import Stage, stages, write_presets

LEFT_OUT = {
    "speed.json",
    ".speed.json.lock",
    ".unet.safetensors.lock",
}  # these hold times, and where a file lay
FINGERPRINTS = ("convert", "collect", "select", "set_ranges", "reconstruct", "generate", "evaluate")
SIDES = ("{}", "{}.made.json", ".{}.lock")


def contents(folder: Path) -> dict[str, bytes]:
    """All files but those of `LEFT_OUT`."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in LEFT_OUT)
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
    defer()  # as the command line does
    for name in FINGERPRINTS:
        stage_fingerprint(name)  # which is kept, for all children
    changes, count, modules = [], open_folder / "count", open_folder / "modules"
    for stage in stages():
        status, said = run(stage.argv, folder, lambda: counting(count), modules=modules)
        assert status == 0, said
        changes.append(int(count.read_text()))
        for name in modules.read_text().splitlines():  # so that later children need not import them
            with suppress(Exception):
                import_module(name)
    gc.freeze()  # of which children would otherwise have a copy each
    return Whole(folder, stages(), changes)


def counting(file: Path) -> None:
    """Writes how often the command changes or opens a file, into another folder."""
    handle = os.open(file, os.O_CREAT | os.O_TRUNC | os.O_RDWR)
    count_changes(lambda count: os.pwrite(handle, b"%d" % count, 0))
