"""Two writers of one artifact: two instances, one whose Snakemake was killed, another user."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from edadm import cli

from .children import at_change, die, exit_status, run, start
from .conftest import Whole, contents, remove

NOBODY = 65534


def assert_as_undisturbed(whole: Whole, index: int, folder: Path) -> None:
    expected, found = whole.after(index), contents(folder)
    assert sorted(found) == sorted(expected)
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.mark.parametrize("name", ["evaluate", pytest.param("collect-trajectories", marks=pytest.mark.long)])
def test_two_instances_make_it_once(name: str, whole: Whole, tmp_path: Path) -> None:
    index = whole.index(name)
    folder = whole.before(index, tmp_path)
    children = [start(whole.stages[index].argv, folder) for _ in range(2)]
    ends = [child.wait() for child in children]
    assert [status for status, _ in ends] == [0, 0], ends
    assert sum("is there already, made from the same settings" in said for _, said in ends) == 1
    assert_as_undisturbed(whole, index, folder)


def test_an_orphan_and_the_next_run_meet(whole: Whole, tmp_path: Path) -> None:
    """Snakemake was killed, a child lives on; the next Snakemake deletes outputs and starts the stage again."""
    index = whole.index("set-ranges")
    stage = whole.stages[index]
    folder = whole.before(index, tmp_path)
    orphan = start(stage.argv, folder, at_change(whole.changes[index] // 2, die(signal.SIGSTOP)))
    orphan.until_stopped()
    for output in stage.outputs:
        remove(folder / output)
    again = start(stage.argv, folder)
    os.kill(orphan.process, signal.SIGCONT)
    ends = [orphan.wait(), again.wait()]
    assert [status for status, _ in ends] == [0, 0], ends
    assert_as_undisturbed(whole, index, folder)


def test_work_goes_on_when_nobody_listens(whole: Whole, tmp_path: Path) -> None:
    """Snakemake and `tee` were killed: what a child says goes into a pipe without a reader."""
    index = whole.index("generate")
    folder = whole.before(index, tmp_path)
    child = start(whole.stages[index].argv, folder)
    child.said.close()
    _, status = os.waitpid(child.process, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert_as_undisturbed(whole, index, folder)


def as_nobody() -> None:
    """Gives up being root, as far as files are concerned."""
    os.umask(0o002)
    os.setgroups([NOBODY])
    os.setegid(NOBODY)
    os.seteuid(NOBODY)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("shared", [False, pytest.param(True, marks=pytest.mark.long)])
def test_another_user_is_told_or_goes_on(shared: bool, whole: Whole, open_folder: Path) -> None:
    index = whole.index("evaluate")
    folder = whole.before(index, open_folder / f"shared{shared}")
    modes = (0o2775, 0o664) if shared else (0o755, 0o644)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 0, NOBODY)
        path.chmod(modes[not path.is_dir()])
    before = contents(folder)
    elsewhere = whole.before(index, open_folder / f"imports{shared}")
    argv = whole.stages[index].argv

    def import_all() -> None:
        """Runs the stage as root first, since another user may not read the modules that it imports."""
        os.chdir(elsewhere)
        sys.argv = argv
        assert exit_status(cli.main) == 0
        os.chdir(folder)

    status, said = run(argv, folder, import_all, as_nobody)
    if shared:
        assert status == 0, said
        assert_as_undisturbed(whole, index, folder)
        return
    assert status == 2, said
    assert "Traceback" not in said
    (said,) = (line for line in said.splitlines() if line.startswith("edadm: "))
    assert "metrics.json" in said
    assert "since user nobody may not write there; make it and its folder writable" in said
    assert contents(folder) == before
