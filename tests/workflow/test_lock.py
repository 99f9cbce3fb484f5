"""Two runs on one results folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from .toy import REPOSITORY, Run, Toy

pytestmark = pytest.mark.workflow

TARGET = "results/toy/fp32/unet.safetensors"


def test_a_second_run_leaves_the_first_alone_and_a_killed_one_locks_nobody_out(tmp_path: Path) -> None:
    toy = Toy(tmp_path, REPOSITORY)
    lock = toy.results / "toy" / ".run.lock"
    with toy.started(TARGET) as first:
        first.until(lambda: lock.is_file() and lock.read_text())
        status, said = toy.run(TARGET)
        assert status == 2
        assert f"process {first.process.pid} on " in said
        assert (
            "is running the workflow of toy in results; wait for it to end, or kill it, and start again"
            in said
        )
        assert "Traceback" not in said
        assert toy.planned("results/toy/trajectories/0.zarr")  # a dry run asks for no lock
        first.process.kill()
        first.wait()
        status, said = toy.run(TARGET)
        assert status == 0, said
        with contextlib.suppress(ProcessLookupError):
            os.killpg(first.process.pid, signal.SIGKILL)  # its job, if that is still at work
    assert not toy.planned(TARGET)


def generating(run: Run) -> list[psutil.Process]:
    """Processes of a run that make images."""
    found = []
    for process in run.members():
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[1:4] == ["-m", "edadm", "generate"]:
                found.append(process)
    return found


@pytest.mark.long  # tests/sampling/test_two_collectors.py has an orphan without Snakemake
def test_an_orphan_does_not_replace_what_was_asked_for_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snakemake alone is killed, a setting is changed, and the old job ends last."""
    monkeypatch.setenv("EDADM_WARM", "0")  # so that who is suspended does the work
    toy, target = Toy(tmp_path, REPOSITORY), "results/toy/fp32/samples/0.npy"
    images, now = tmp_path / target, ("--config", 'evaluations={"few": {"seed": 1}}')
    with toy.started(target) as run:
        (orphan,) = run.until(
            lambda: generating(run) if list(images.parent.glob(".0.npy.*.making")) else None
        )
        orphan.suspend()
        run.process.kill()
        run.wait()
        status, said = toy.run(*now, "--", target)
        assert status == 0, said
        made = images.read_bytes()
        orphan.resume()
        psutil.wait_procs([orphan], timeout=300)
    assert images.read_bytes() == made
    facts = json.loads(images.with_name("0.npy.made.json").read_text())
    assert facts["made_from"]["evaluation"]["seed"] == 1
    assert "was asked for with other settings since this job began" in run.text()
    assert toy.planned(*now, "--", target) == {}
