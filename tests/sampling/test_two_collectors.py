"""Two processes that collect to one place: one store, whoever is killed, and never that of an older setting."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from contextlib import suppress
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from edadm.artifacts import describe
from edadm.cli import main
from edadm.config.schema import Model, Sampler, Trajectories
from edadm.networks.build import build_network
from edadm.networks.settings.architecture import Architecture
from edadm.sampling.shards import open_finished
from edadm.sampling.store import TrajectoryStore

from ..conftest import reinitialise

FORK = multiprocessing.get_context("fork")
ARCHITECTURE = Architecture(
    image_size=8,
    channels=8,
    multipliers=(1, 2),
    blocks_per_level=1,
    attention_resolutions=(4,),
    norm_groups=4,
)


@pytest.fixture(scope="module", autouse=True)
def ready(unet: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is slow the first time, before processes are forked."""
    with suppress(SystemExit):
        collect(tmp_path_factory.mktemp("first"), unet)


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = build_network(ARCHITECTURE)
    reinitialise(network, 0)
    path = tmp_path_factory.mktemp("weights") / "unet.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    return path


def preset(seed: int) -> str:
    trajectories = Trajectories(count=4, batch_size=2, feature_rows=2, seed=seed)
    model = Model(
        checkpoint="none", architecture=ARCHITECTURE, sampler=Sampler(steps=2), trajectories=trajectories
    )
    return model.model_dump_json()


def collect(
    folder: Path, unet: Path, seed: int = 1, begun: Event | None = None, end: Event | None = None
) -> None:
    """The subcommand, which stops after its first batch until it may go on; every batch it makes is counted."""
    write = TrajectoryStore.write

    def stop(store: TrajectoryStore, batch: int, *data: Any) -> None:
        write(store, batch, *data)
        with open(folder / "batches", "a") as made:
            made.write(f"{seed}/{batch} ")
        if begun is not None and end is not None and not begun.is_set():
            begun.set()
            end.wait(60)

    TrajectoryStore.write = stop  # type: ignore[method-assign]
    options = {
        "model": preset(seed),
        "unet": unet,
        "output": folder / "0.zarr",
        "progress": folder / "progress",
    }
    sys.argv = ["edadm", "collect-trajectories", *(f"--{name}={value}" for name, value in options.items())]
    try:
        main()
    finally:
        TrajectoryStore.write = write  # type: ignore[method-assign]


def started(folder: Path, unet: Path, seed: int = 1) -> tuple[Any, Event]:
    begun, end = FORK.Event(), FORK.Event()
    process = FORK.Process(target=collect, args=(folder, unet, seed, begun, end))
    process.start()
    assert begun.wait(60)
    return process, end


def seed_of(folder: Path) -> int:
    found = describe(folder / "0.zarr")
    assert found is not None
    open_finished([folder / "0.zarr"])
    return found["made_from"]["model"]["trajectories"]["seed"]


@pytest.mark.parametrize("killed", [False, True])
def test_two_collectors_end_with_one_store(killed: bool, unet: Path, tmp_path: Path) -> None:
    first, end = started(tmp_path, unet)
    second = FORK.Process(target=collect, args=(tmp_path, unet))
    second.start()
    if killed:
        os.kill(first.pid, signal.SIGKILL)
    else:
        end.set()
    first.join()
    second.join()
    assert (first.exitcode, second.exitcode) == (-signal.SIGKILL if killed else 0, 0)
    assert seed_of(tmp_path) == 1
    assert (tmp_path / "batches").read_text() == "1/0 1/1 "  # none was collected twice
    assert sorted(path.name for path in tmp_path.iterdir()) == [".0.zarr.lock", "0.zarr", "batches"]


def test_an_orphan_of_an_older_seed_leaves_the_newer_store(unet: Path, tmp_path: Path) -> None:
    orphan, end = started(tmp_path, unet, seed=1)
    newer = FORK.Process(target=collect, args=(tmp_path, unet, 2))
    newer.start()
    newer.join()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "0.zarr").rglob("*")}
    end.set()
    orphan.join()
    assert (orphan.exitcode, newer.exitcode) == (2, 0)
    assert seed_of(tmp_path) == 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "0.zarr").rglob("*")} == before
