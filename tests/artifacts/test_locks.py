"""Locks are waited for; file systems without them are not busy."""

from __future__ import annotations

import builtins
import errno
import fcntl
import importlib
import multiprocessing
import os
import signal
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest

from edadm.artifacts import locks
from edadm.artifacts.locks import if_free, locked, rewrite
from edadm.errors import EdadmError

FORK = multiprocessing.get_context("fork")


def hold(path: Path, held: Event, end: Event) -> None:
    with locked(path, "the store") as file:
        rewrite(file, "process 7 on a machine")
        held.set()
        end.wait(60)


@pytest.mark.parametrize("killed", [True, False])
def test_a_lock_is_waited_for_with_one_line_and_dies_with_its_process(
    killed: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, end = FORK.Event(), FORK.Event()
    other = FORK.Process(target=hold, args=(tmp_path / "lock", held, end))
    other.start()
    assert held.wait(60)
    with if_free(tmp_path / "lock") as free:
        assert not free

    def leave(_: float) -> None:
        if killed:
            assert other.pid is not None
            os.kill(other.pid, signal.SIGKILL)
        else:
            end.set()
        other.join()

    monkeypatch.setattr(locks.time, "sleep", leave)
    with locked(tmp_path / "lock", "the store") as file:
        assert file.read() == "process 7 on a machine"
    assert capfd.readouterr().err == "waiting for process 7 on a machine, which is making the store\n"
    with if_free(tmp_path / "lock") as free:
        assert free


def test_a_lock_whose_file_was_removed_meanwhile_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[Any] = []

    def attempt(file: Any) -> bool:
        if not attempts:
            (tmp_path / "lock").unlink()
        attempts.append(file)
        return True

    monkeypatch.setattr(locks, "attempt", attempt)
    with locked(tmp_path / "lock", "the store") as file:
        assert os.path.samestat(os.fstat(file.fileno()), (tmp_path / "lock").stat())
    assert len(attempts) == 2


def failing(code: int) -> Any:
    def lock(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    return lock


@pytest.mark.parametrize(
    "code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EACCES, errno.EIO, errno.EINVAL]
)
def test_where_flock_fails_the_other_kind_of_lock_is_taken(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fcntl, "flock", failing(code))
    held, end = FORK.Event(), FORK.Event()
    other = FORK.Process(target=hold, args=(tmp_path / "lock", held, end))
    other.start()
    assert held.wait(60)
    monkeypatch.setattr(locks.time, "sleep", lambda _: (end.set(), other.join()))
    with locked(tmp_path / "lock", "the store"):
        assert not other.is_alive()
    assert capfd.readouterr().err.count("waiting for") == 1


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, None])
def test_where_no_lock_works_the_work_goes_on_and_one_line_says_so(
    code: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if code is None:
        monkeypatch.setattr(locks, "fcntl", None)
    else:
        monkeypatch.setattr(fcntl, "flock", failing(code))
        monkeypatch.setattr(fcntl, "lockf", failing(code))
    for _ in range(2):
        with locked(tmp_path / "lock", "the store"):
            pass
    assert (
        capfd.readouterr().err == f"{tmp_path} has no file locks; do not start the same stage twice there\n"
    )
    with if_free(tmp_path / "lock") as free:
        assert not free


def test_edadm_is_imported_where_there_are_no_such_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    find = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "fcntl":
            raise ImportError(name)
        return find(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    try:
        assert importlib.reload(locks).fcntl is None
    finally:
        monkeypatch.undo()
        importlib.reload(locks)


def test_a_lock_that_cannot_be_made_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()
    with (
        pytest.raises(
            EdadmError,
            match=r"lock cannot be written, since a folder lies where it belongs; move that folder",
        ),
        locked(tmp_path / "lock", "x"),
    ):
        pass
