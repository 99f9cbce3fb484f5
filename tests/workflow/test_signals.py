"""Snakemake itself is asked to end while jobs run: whatever these do, a new run ends with the bytes of an undisturbed one."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from .toy import Run, Toy, job_stats

pytestmark = pytest.mark.workflow

BATCHES = "toy/trajectories/.*.progress/*/store.zarr/finished/c/[0-9]"
MOMENTS = (
    BATCHES,
    "toy/tdac/w4a8/.fbr.progress/*/[0-9]*.safetensors",
    "toy/tdac/w4a8/fbr/samples/.0.npy.lock",
)


def to_it(run: Run, name: signal.Signals) -> None:
    """A signal to Snakemake alone."""
    run.process.send_signal(name)


def to_all(run: Run, name: signal.Signals) -> None:
    """A signal to Snakemake and its jobs, as from a terminal."""
    os.killpg(run.process.pid, name)


def stopped(
    toy: Toy, pattern: str, send: Callable[[Run, signal.Signals], None], name: signal.Signals, *targets: str
) -> str:
    """Starts a run, which gets a signal when a file appeared that was not there; what it said until it ended."""
    before = set(toy.results.glob(pattern))
    with toy.started("--", *targets) as run:
        run.until(lambda: set(toy.results.glob(pattern)) - before)
        members = run.members()
        for member in members:  # so that no job is at its end before it hears
            with suppress(psutil.NoSuchProcess):
                member.suspend()
        send(run, name)
        for member in members:
            with suppress(psutil.NoSuchProcess):
                member.resume()
        assert run.wait() != 0, run.text()
        if targets:  # of one job; Snakemake does not always wait for several
            assert not jobs(run), f"jobs outlive a Snakemake that ended by itself:\n{run.text()}"
        return run.text()


def jobs(run: Run) -> list[psutil.Process]:
    """What still runs, but for the server of jobs' forks, which has nothing left to do and ends by itself."""
    servers, found = set(), []
    for member in run.members():
        with suppress(psutil.NoSuchProcess):
            if "edadm.warm.server" not in member.cmdline() or member.ppid() in servers:
                found.append(member)
            else:
                servers.add(member.pid)
    return found


def assert_the_same(toy: Toy, reference: Toy) -> None:
    found, expected = toy.artifacts(), reference.artifacts()
    assert set(found) == set(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert toy.page() == reference.page()


def test_an_interrupted_and_then_a_terminated_run(reference: Toy, tmp_path: Path) -> None:
    """Ctrl-C ends the job, which goes on from its finished batches; after SIGTERM Snakemake lets it finish."""
    shutil.copytree(reference.folder, tmp_path / "toy", symlinks=True)
    toy = reference.at(tmp_path / "toy")
    target = "results/toy/trajectories/0.zarr"
    shutil.rmtree(toy.folder / target)
    stopped(toy, BATCHES, to_all, signal.SIGINT, target)
    assert not (toy.folder / target).exists()
    kept = len(set(toy.results.glob(BATCHES)))
    assert 0 < kept < 4
    said = stopped(toy, BATCHES, to_it, signal.SIGTERM, target)
    assert f"{4 - kept}/{4 - kept} batches" in said
    status, said = toy.run("--", target)
    assert status == 0, said
    assert job_stats(said) == {}
    assert_the_same(toy, reference)


@pytest.mark.long
@pytest.mark.parametrize(("send", "name"), [(to_it, signal.SIGINT), (to_all, signal.SIGTERM)])
def test_a_run_that_is_stopped_in_every_kind_of_stage(
    send: Callable[[Run, signal.Signals], None],
    name: signal.Signals,
    reference: Toy,
    package: Path,
    tmp_path: Path,
) -> None:
    toy = Toy(tmp_path, package)
    for pattern in MOMENTS:
        stopped(toy, pattern, send, name)
    status, said = toy.run()
    assert status == 0, said
    assert_the_same(toy, reference)
