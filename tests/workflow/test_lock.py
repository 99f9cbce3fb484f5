"""Two runs on one results folder."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from .toy import REPOSITORY, Toy

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
        assert "is running the workflow of toy in results; wait for it to end, or kill it, and start again" in said
        assert "Traceback" not in said
        assert toy.planned(TARGET)  # a dry run asks for no lock
        first.process.kill()
        first.wait()
        status, said = toy.run(TARGET)
        assert status == 0, said
        with contextlib.suppress(ProcessLookupError):
            os.killpg(first.process.pid, signal.SIGKILL)  # its job, if that is still at work
    assert not toy.planned(TARGET)
