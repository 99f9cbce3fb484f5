"""One artifact and several jobs: made once, and never replaced by what is no longer wanted."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest

from edadm.artifacts import StaleError, as_json, describe, facts, making
from edadm.artifacts.digest import canonical

FORK = multiprocessing.get_context("fork")


def wanted(setting: int) -> dict[str, Any]:
    return facts("selection", {"calibration": {"size": setting}})


def make(
    folder: Path, setting: int, begun: Event | None = None, end: Event | None = None, code: str = "code"
) -> None:
    """A stage with one piece, which waits before it publishes; its made pieces are counted in a file."""
    output, known = folder / "artifact.json", wanted(setting)
    with making([output], known, code, folder / "progress") as work:
        if work is None:
            return
        assert work.folder is not None
        piece = work.folder / "piece"
        if not piece.exists():
            with open(folder / "made", "a") as made:
                made.write(f"{setting}\n")
            piece.write_text(str(setting))
        if begun is not None and end is not None:
            begun.set()
            end.wait(60)
        with work.publishing() as partial:
            partial.write_text(as_json({"value": int(piece.read_text())}, known))


def started(folder: Path, setting: int, **options: Any) -> tuple[Any, Event, Event]:
    """A process that makes the artifact, has its piece, and waits."""
    begun, end = FORK.Event(), FORK.Event()
    process = FORK.Process(target=make, args=(folder, setting, begun, end), kwargs=options)
    process.start()
    assert begun.wait(60)
    return process, begun, end


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != "made")


def value(folder: Path) -> int:
    found = describe(folder / "artifact.json")
    assert found is not None
    return found["made_from"]["calibration"]["size"]


def test_an_artifact_is_made_once_and_its_pieces_go(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make(tmp_path, 1)
    before = (tmp_path / "artifact.json").stat().st_mtime_ns
    assert left(tmp_path) == [".artifact.json.lock", "artifact.json"]
    assert capfd.readouterr().err == ""
    make(tmp_path, 1)
    assert (
        capfd.readouterr().err
        == f"{tmp_path}/artifact.json is there already, made from the same settings and inputs\n"
    )
    assert (tmp_path / "artifact.json").stat().st_mtime_ns == before
    make(tmp_path, 2)
    make(tmp_path, 2, code="other")
    assert (tmp_path / "made").read_text() == "1\n2\n2\n"


def test_an_artifact_that_was_deleted_or_replaced_is_made_again(tmp_path: Path) -> None:
    make(tmp_path, 1)
    (tmp_path / "artifact.json").unlink()
    make(tmp_path, 1)
    (tmp_path / "artifact.json").write_text(as_json({"value": 2}, wanted(2)))
    make(tmp_path, 1)
    assert value(tmp_path) == 1
    assert (tmp_path / "made").read_text() == "1\n1\n1\n"


@pytest.mark.parametrize("killed", [False, True])
def test_two_jobs_of_the_same_work_make_it_once(killed: bool, tmp_path: Path) -> None:
    first, _, end = started(tmp_path, 1)
    second = FORK.Process(target=make, args=(tmp_path, 1))
    second.start()
    if killed:
        os.kill(first.pid, signal.SIGKILL)
    else:
        second.join(0.5)
        assert second.is_alive()  # it waits
        end.set()
    first.join()
    second.join()
    assert second.exitcode == 0
    assert value(tmp_path) == 1
    assert (tmp_path / "made").read_text() == "1\n"  # the piece of a killed one is taken over, too
    assert left(tmp_path) == [".artifact.json.lock", "artifact.json"]


@pytest.mark.parametrize("newer_ends_first", [True, False])
def test_an_orphan_of_an_older_setting_does_not_replace_the_newer_artifact(
    newer_ends_first: bool, tmp_path: Path
) -> None:
    orphan, _, end = started(tmp_path, 1)
    newer, _, newer_end = started(tmp_path, 2)
    order = [(newer, newer_end), (orphan, end)] if newer_ends_first else [(orphan, end), (newer, newer_end)]
    for process, ending in order:
        ending.set()
        process.join()
    assert orphan.exitcode != 0
    assert newer.exitcode == 0
    assert value(tmp_path) == 2
    assert (tmp_path / "made").read_text() == "1\n2\n"


def test_an_orphan_of_the_setting_that_is_wanted_again_counts(tmp_path: Path) -> None:
    orphan, _, end = started(tmp_path, 1)
    make(tmp_path, 2)
    again = FORK.Process(target=make, args=(tmp_path, 1))
    again.start()
    again.join(0.5)
    end.set()
    orphan.join()
    again.join()
    assert (orphan.exitcode, again.exitcode) == (0, 0)
    assert value(tmp_path) == 1
    assert (tmp_path / "made").read_text() == "1\n2\n"


def test_what_an_orphan_has_so_far_is_left_alone_while_it_lives(tmp_path: Path) -> None:
    orphan, _, _ = started(tmp_path, 1)
    make(tmp_path, 2)
    assert [piece.read_text() for piece in (tmp_path / "progress").rglob("piece")] == ["1"]
    os.kill(orphan.pid, signal.SIGKILL)
    orphan.join()
    make(tmp_path, 3)
    assert left(tmp_path) == [
        ".artifact.json.lock",
        "artifact.json",
    ]  # and goes with the next work when it is dead


def test_who_gives_up_says_so(tmp_path: Path) -> None:
    def overtaken() -> None:
        with making([tmp_path / "artifact.json"], wanted(1), "code") as work:
            assert work is not None
            make(tmp_path, 2)
            with work.publishing() as partial:
                partial.write_text("old")

    with pytest.raises(
        StaleError, match=r"artifact\.json was asked for with other settings since this job began"
    ):
        overtaken()
    assert value(tmp_path) == 2


def test_pieces_of_the_version_before_go_when_the_artifact_is_there(tmp_path: Path) -> None:
    old = tmp_path / "progress" / "store.zarr"
    old.mkdir(parents=True)
    for name in (".lock", "description.txt"):
        (tmp_path / "progress" / name).touch()
    make(tmp_path, 1)
    assert left(tmp_path) == [".artifact.json.lock", "artifact.json"]


def test_a_torn_lock_file_counts_as_new(tmp_path: Path) -> None:
    (tmp_path / ".artifact.json.lock").write_text('{"wanted": "12')
    make(tmp_path, 1)
    assert value(tmp_path) == 1


def test_a_finished_folder_is_not_overwritten(tmp_path: Path) -> None:
    def make_folder(setting: int) -> None:
        known = wanted(setting)
        with making([tmp_path / "0.zarr"], known, "code", tmp_path / "progress") as work:
            if work is not None:
                assert work.folder is not None
                store = work.folder / "store"
                store.mkdir(exist_ok=True)
                (store / "zarr.json").write_text(canonical({"attributes": {"edadm": known}}))
                work.publish_folder(store)

    make_folder(1)
    make_folder(1)
    with pytest.raises(
        StaleError,
        match=r"0\.zarr is there already, made from something else; remove it, or name another --output",
    ):
        make_folder(2)
    assert describe(tmp_path / "0.zarr") == wanted(1)
    assert list((tmp_path / "progress").rglob("zarr.json"))  # nothing is lost
