"""Killed runs go on where they stopped and end with the bytes of an undisturbed run."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import zarr
from safetensors.torch import load_file, save_file

from edadm import cli
from edadm.sampling.store import TrajectoryStore

from .toy import Run, Toy, job_stats

pytestmark = pytest.mark.workflow

COLLECT = "toy/trajectories"
RECONSTRUCT = "toy/tdac/w4a8/.fbr.progress"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory, package: Path) -> Toy:
    """The project of the reference in a folder of its own."""
    return Toy(tmp_path_factory.mktemp("disturbed"), package)


def stored_batches(toy: Toy) -> list[Path]:
    """Marks of finished batches in stores that are not complete."""
    return list((toy.results / COLLECT).glob(".*.progress/*/store.zarr/finished/c/[0-9]"))


def finished_units(toy: Toy) -> dict[str, tuple[int, int]]:
    """Unit files in progress, each with what changes when it is written again: its inode and its time."""
    files = (toy.results / RECONSTRUCT).glob("*/[0-9]*.safetensors")
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}


def generating(toy: Toy, run: Run) -> list[psutil.Process]:
    """Processes that generate the images of the quantized model."""
    found = []
    for process in run.members():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if words[1:4] == ["-m", "edadm", "generate"] and any(
            word.endswith("quantized.safetensors") for word in words
        ):
            found.append(process)
    return found


@pytest.mark.usefixtures("beginning")
def test_kills_of_all_and_of_one_job_leave_no_trace(toy: Toy, request: pytest.FixtureRequest):
    """The same command four times: cut while collecting, cut while reconstructing, one job killed, to the end."""
    with toy.started() as run:
        run.until(lambda: stored_batches(toy))
        run.kill_all()
    batches = {mark: mark.stat().st_mtime_ns for mark in stored_batches(toy)}
    store = next(iter(batches)).parents[2]
    shard = store.parents[1].name.split(".")[1]
    kept = sum(mark.is_relative_to(store) for mark in batches)
    assert 0 < kept < 4, "the cut came too late; make a batch slower"
    assert not (toy.results / COLLECT / f"{shard}.zarr").exists()

    with toy.started() as run:
        run.until(lambda: finished_units(toy))
        run.kill_all()
    units = finished_units(toy)
    assert "convert_checkpoint" not in job_stats(run.text())
    assert (
        f"{4 - kept}/{4 - kept} batches"
        in (toy.folder / f"logs/collect-trajectories/toy/{shard}.log").read_text()
    )
    for mark, written in batches.items():
        assert (
            toy.results / COLLECT / f"{mark.parents[4].name.split('.')[1]}.zarr/finished/c" / mark.name
        ).stat().st_mtime_ns == written
    assert not (toy.results / "toy/tdac/w4a8/fbr/quantized.safetensors").exists()

    with toy.started() as run:
        later = run.until(lambda: found if len(found := finished_units(toy)) > len(units) else None)
        assert units.items() <= later.items(), "finished units were learned again"
        run.until(lambda: generating(toy, run), pause=0.1)[0].kill()
        assert run.wait() == 1
    assert not (toy.results / RECONSTRUCT).exists()
    assert {"collect_trajectories", "select_calibration", "set_ranges"}.isdisjoint(job_stats(run.text()))
    assert "Error in rule generate" in run.text()

    status, said = toy.run()
    assert status == 0, said
    assert set(job_stats(said)) <= {"generate", "evaluate", "benchmark", "report"}

    reference: Toy = request.getfixturevalue("reference")
    expected, found = reference.artifacts(), toy.artifacts()
    assert set(found) == set(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert toy.page() == reference.page()


@pytest.mark.long
def test_jobs_that_outlive_a_killed_snakemake_meet_those_of_the_next_run(
    reference: Toy, package: Path, tmp_path: Path
):
    toy = Toy(tmp_path, package)
    with toy.started() as run:
        run.until(lambda: stored_batches(toy))
        run.process.kill()
        assert run.wait() != 0
    status, said = toy.run()
    assert status == 0, said
    expected, found = reference.artifacts(), toy.artifacts()
    assert set(found) == set(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert toy.page() == reference.page()


@pytest.fixture
def collect(reference: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Runs the subcommand for the first shard in this process, from unet.safetensors to 0.zarr in `tmp_path`."""
    unet, output, progress = tmp_path / "unet.safetensors", tmp_path / "0.zarr", tmp_path / "progress"
    shutil.copy(reference.results / "toy/fp32/unet.safetensors", unet)
    options = {
        "model": "toy",
        "config": reference.folder / "config.yaml",
        "unet": unet,
        "output": output,
        "progress": progress,
    }
    monkeypatch.setattr(
        sys,
        "argv",
        ["edadm", "collect-trajectories", *(f"--{name}={value}" for name, value in options.items())],
    )

    def run() -> None:
        with contextlib.suppress(SystemExit):
            cli.main()

    return run


@pytest.fixture
def store(reference: Toy) -> dict[Path, bytes]:
    """What `collect` should write."""
    return contents(reference.results / COLLECT / "0.zarr")


def test_pieces_made_with_other_weights_are_made_again(
    store: dict[Path, bytes], collect: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    unet = tmp_path / "unet.safetensors"
    right = unet.read_bytes()
    save_file({name: tensor * 1.01 for name, tensor in load_file(unet).items()}, unet)
    write = TrajectoryStore.write

    def write_one(store: TrajectoryStore, batch: int, *data: Any) -> None:
        if batch:
            raise InterruptedError
        write(store, batch, *data)

    monkeypatch.setattr(TrajectoryStore, "write", write_one)
    with pytest.raises(InterruptedError):
        collect()
    assert len(list(tmp_path.glob("progress/*/store.zarr/finished/c/0"))) == 1
    monkeypatch.setattr(TrajectoryStore, "write", write)
    unet.write_bytes(right)
    collect()
    assert contents(tmp_path / "0.zarr") == store
    assert not (tmp_path / "progress").exists()


def test_a_store_that_was_begun_and_a_torn_write_do_no_harm(
    store: dict[Path, bytes], collect: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    create, write = zarr.Group.create_array, TrajectoryStore.write

    def create_some(group: zarr.Group, name: str, **settings: Any) -> zarr.Array:
        if name == "finished":
            raise InterruptedError
        return create(group, name, **settings)

    def tear(store: TrajectoryStore, batch: int, *data: Any) -> None:
        (store.path / "latents/0.abc.partial").write_bytes(b"to")
        raise InterruptedError

    monkeypatch.setattr(zarr.Group, "create_array", create_some)
    with pytest.raises(InterruptedError):
        collect()
    monkeypatch.setattr(zarr.Group, "create_array", create)
    monkeypatch.setattr(TrajectoryStore, "write", tear)
    with pytest.raises(InterruptedError):
        collect()
    monkeypatch.setattr(TrajectoryStore, "write", write)
    collect()
    assert contents(tmp_path / "0.zarr") == store


def contents(folder: Path) -> dict[Path, bytes]:
    """Every file below a folder, but for Snakemake's mark."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".snakemake_timestamp")
    return {path.relative_to(folder): path.read_bytes() for path in files}
