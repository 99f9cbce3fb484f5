"""Files that are whole or absent, whoever else writes them."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from contextlib import nullcontext
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edadm.artifacts import PlaceError, whole, writing

FORK = multiprocessing.get_context("fork")


def test_a_file_appears_whole_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with writing(path) as partial:
        partial.write_text("content")
        assert not path.exists()
    assert path.read_text() == "content"
    assert list(path.parent.iterdir()) == [path]


def test_a_partial_file_has_no_partial_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    with writing(path) as partial:
        with writing(partial) as same:
            same.write_text("content")
            assert list(tmp_path.iterdir()) == [partial]
        assert partial.read_text() == "content"
    assert path.read_text() == "content"


def test_a_failed_block_leaves_the_old_file_and_no_pieces(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail() -> None:
        with writing(path) as partial:
            partial.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_others_may_read_what_safetensors_wrote(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with writing(tmp_path / "a.safetensors") as partial:
        save_file({"a": torch.zeros(1)}, partial)
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def write_slowly(path: Path, letter: str, half: Event, rest: Event) -> None:
    with writing(path) as partial, open(partial, "w") as file:
        file.write(letter * 300)
        file.flush()
        half.set()
        rest.wait(60)
        file.write(letter * 700)


@pytest.mark.parametrize("killed", [True, False])
def test_of_two_writers_each_publishes_a_whole_file(killed: bool, tmp_path: Path) -> None:
    path = tmp_path / "file"
    half, rest = FORK.Event(), FORK.Event()
    other = FORK.Process(target=write_slowly, args=(path, "b", half, rest))
    other.start()
    assert half.wait(60)
    with writing(path) as partial:
        partial.write_text("a" * 1000)
    assert path.read_text() == "a" * 1000
    assert len(list(tmp_path.iterdir())) == 2  # the other one's partial file is left alone while it lives
    if killed:
        assert other.pid is not None
        os.kill(other.pid, signal.SIGKILL)
    else:
        rest.set()
    other.join()
    assert path.read_text() == ("a" if killed else "b") * 1000
    with writing(path) as partial:
        partial.write_text("c")
    assert list(tmp_path.iterdir()) == [path]  # and removed when it is dead


def test_what_other_machines_write_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whole, "machine", lambda: "other")
    with writing(tmp_path / "file") as partial:
        (tmp_path / partial.name.replace(str(os.getpid()), "999999999")).touch()
    (left,) = tmp_path.glob(".file.*.partial")
    monkeypatch.undo()
    with writing(tmp_path / "file"):
        pass
    assert left.exists()


def test_a_name_as_long_as_file_systems_allow_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    with writing(path) as partial:
        partial.write_text("content")
    assert path.read_text() == "content"


def test_content_and_name_are_on_the_disk_before_the_block_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[bool, bool]] = []
    path = tmp_path / "file"
    monkeypatch.setattr(
        os,
        "fsync",
        lambda descriptor: synced.append((os.path.isdir(f"/proc/self/fd/{descriptor}"), path.exists())),
    )
    with writing(path) as partial:
        partial.write_text("content")
    assert synced == [(False, False), (True, True)]  # the file before its rename, its folder after


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (errno.ENOTSUP, None),
        (errno.EINVAL, None),
        (errno.EIO, "its disk reports an error"),
        (errno.ENOSPC, "its disk is full"),
    ],
)
def test_a_file_system_that_cannot_tell_what_is_on_the_disk_is_used_and_a_full_disk_is_not(
    code: int, told: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    path = tmp_path / "file"
    with (
        nullcontext()
        if told is None
        else pytest.raises(PlaceError, match=f"file cannot be written, since {told}"),
        writing(path) as partial,
    ):
        partial.write_text("content")
    assert path.exists() == (told is None)
    assert len(list(tmp_path.iterdir())) == (told is None)
