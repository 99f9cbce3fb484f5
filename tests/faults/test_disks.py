"""Disks that are full, small, or read only: one sentence that names the file and what to do, and nothing is lost."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from .children import run
from .conftest import Whole, contents

STAGES = ("convert-checkpoint", "generate")  # safetensors, NumPy
OTHERS = (
    "evaluate",
    "collect-trajectories",
    "select-calibration",
    "set-ranges",
    "reconstruct",
    "benchmark unet",
    "report",
)
LONG = [pytest.param(name, marks=pytest.mark.long) for name in OTHERS]
SIZE = 16 * 2**20


def assert_refused(said: str, folder: Path, before: dict[str, bytes], because: str) -> None:
    """One sentence said why, nothing but locks and finished pieces was added, and all else is as it was."""
    sentences = [line for line in said.splitlines() if line.startswith("edadm: ")]
    assert len(sentences) == 1, said
    assert because in sentences[0]
    assert "cannot be written" in sentences[0]
    assert "; " in sentences[0]
    assert "Traceback" not in said
    found = contents(folder)
    assert {name: found.get(name) for name in before} == before
    assert not [name for name in found if name.endswith(".partial") and ".zarr" not in name]
    kept = {name for name in found.keys() - before.keys() if not Path(name).name.startswith(".")}
    assert not [name for name in kept if ".progress/" not in name], "a file has its final name"


def assert_goes_on(whole: Whole, folder: Path, index: int) -> None:
    """The same command ends well, with the bytes of an undisturbed run."""
    status, said = run(whole.stages[index].argv, folder)
    assert status == 0, said
    expected, found = whole.after(index), contents(folder)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.mark.parametrize("name", [*STAGES, *LONG])
def test_a_file_that_may_not_become_as_large_is_named(name: str, whole: Whole, tmp_path: Path) -> None:
    index = whole.index(name)
    folder = whole.before(index, tmp_path)
    sizes = [size(whole.folder / output) for output in whole.stages[index].outputs]
    limit = max(sizes) // 2
    before = {name: data for name, data in contents(folder).items() if not name.endswith(".lock")}
    limits = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # noqa: E731
    status, said = run(whole.stages[index].argv, folder, limits)
    assert status == 2, said
    assert_refused(said, folder, before, "it would be larger than a file may be there; raise `ulimit -f`")
    if index + 1 < len(whole.stages):  # a report may be written in part: each of its files is whole
        assert_goes_on(whole, folder, index)


def size(path: Path) -> int:
    """Of a file, or of the largest file in a folder."""
    return max(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory with little room for bytes and files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = f"size={SIZE},nr_inodes=600"
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, text=True
    )
    if made.returncode:
        pytest.skip(f"no disk of its own: only who may mount has one ({made.stderr.strip()})")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize(
    "name",
    [
        "generate",
        *(pytest.param(name, marks=pytest.mark.long) for name in ("collect-trajectories", "reconstruct")),
    ],
)
def test_a_full_disk_is_named_and_after_room_was_made_work_goes_on(
    name: str, whole: Whole, small_disk: Path
) -> None:
    index = whole.index(name)
    folder = whole.before(index, small_disk / "results")
    before = {name: data for name, data in contents(folder).items() if not name.endswith(".lock")}
    ballast = small_disk / "ballast"
    fill(ballast, 40_000 if name != "generate" else 8_000)
    status, said = run(whole.stages[index].argv, folder)
    assert status == 2, said
    assert_refused(said, folder, before, "its disk is full (")
    ballast.unlink()
    assert_goes_on(whole, folder, index)


def fill(ballast: Path, left: int) -> None:
    """Takes all room but so many bytes."""
    with open(ballast, "wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(max(0, file.tell() - left))


def test_a_disk_without_room_for_more_files_is_named(whole: Whole, small_disk: Path) -> None:
    index = whole.index("collect-trajectories")
    folder = whole.before(index, small_disk / "results")
    before = {name: data for name, data in contents(folder).items() if not name.endswith(".lock")}
    spare = small_disk / "spare"
    spare.mkdir()
    for number in range(1000):
        try:
            (spare / str(number)).touch()
        except OSError:
            break
    for number in range(40):  # some room: for a part of the store
        (spare / str(number)).unlink()
    status, said = run(whole.stages[index].argv, folder)
    assert status == 2, said
    assert_refused(said, folder, before, "its disk has room for no more files; remove some there (`df -i`)")
    for file in spare.iterdir():
        file.unlink()
    assert_goes_on(whole, folder, index)


def test_a_disk_that_can_only_be_read_is_named(whole: Whole, small_disk: Path) -> None:
    index = whole.index("evaluate")
    folder = whole.before(index, small_disk / "results")
    before = contents(folder)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    status, said = run(whole.stages[index].argv, folder)
    assert status == 2, said
    assert_refused(said, folder, before, "its disk can only be read; make it writable")
