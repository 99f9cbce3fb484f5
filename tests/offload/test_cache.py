"""What is kept under limits, and that limits change nothing but where it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from edadm.config.schema import Bits, Reconstruction
from edadm.config.schema import Memory as MemorySettings
from edadm.deploy.checkpoint import grids, quantized_copy, set_grids
from edadm.errors import EdadmError
from edadm.learning import chain
from edadm.learning.capture import PausingNetwork
from edadm.learning.demand import demand
from edadm.learning.task import Task
from edadm.learning.unit_store import FolderUnitStore, UnitStore
from edadm.networks.inputs import Rows
from edadm.networks.trace import trace_units
from edadm.networks.unet.build import build_unet
from edadm.offload.cache import Memory, placed
from edadm.offload.paused import PausedMemory
from edadm.offload.storage import GIB, TIERS, UNLIMITED, Limits, TieredStorage
from edadm.passes.methods import run_method
from edadm.passes.ranges import set_ranges
from edadm.quant import ranges as range_search

from ..conftest import as_rows
from ..learning.runs import Calibration, UnitsInMemory, a_task, same, state
from ..networks.families import random_network, tiny

CPU = torch.device("cpu")


class Spy(Memory):
    """Remembers itself."""

    made: Memory

    def __init__(self, device: torch.device, limits: Limits):
        super().__init__(device, limits)
        Spy.made = self


def limited(task: Task, device: int, host: int, scratch: Path) -> Task:
    """The task with limits in bytes."""
    task.__dict__.update(memory=MemorySettings(device=device / GIB, host=host / GIB), scratch=scratch)
    return task


def learned_state(task: Task) -> dict[str, Tensor]:
    """Learns; everything that was decided, and the errors on the way."""
    run_method(task)
    errors = torch.tensor(
        [[report.before, report.soft, report.after, report.scale_drift] for _, report in task.reports]
    )
    return state(task.quantized_unet) | {"errors": errors}


@pytest.fixture(scope="module", params=["fbr", "layer", "fbr_float_inputs"])
def method(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make_task(
    float_unet: UNet2DModel,
    gridded: Callable[[], nn.Module],
    calibration: Calibration,
    settings: Reconstruction,
    method: str,
) -> Callable[[UnitStore], Task]:
    changed = settings.model_copy(
        update={"method": method, "bias_correction": method == "fbr_float_inputs", "chain_batch_size": 3}
    )
    return lambda unit_store: a_task(float_unet, gridded(), calibration, changed, unit_store, held_out=1)


def test_no_limit_changes_what_is_learned_and_none_is_exceeded(
    make_task: Callable[[UnitStore], Task], method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = learned_state(make_task(UnitsInMemory()))
    peak = demand(
        *((task := make_task(UnitsInMemory())).float_unet, task.units, task.inputs, task.settings)
    ).of_peak()
    monkeypatch.setattr(chain, "Memory", Spy)
    used = []
    chained = ((0, 0), (peak // 2, peak), (peak, 0)) if method == "fbr" else ()
    for device, host in ((peak // 4, peak // 4), *chained):
        found = learned_state(limited(make_task(UnitsInMemory()), device, host, tmp_path))
        assert same(found, expected), (device, host)
        tiers = Spy.made.storage
        used.append(dict(tiers.most))
        assert set(tiers.used.values()) == {0}, "everything was given back"
        if Spy.made.is_limited:
            assert tiers.most["device"] <= device
            assert tiers.most["host"] <= host
            assert sum(tiers.most.values()) >= 0.9 * peak
        assert list(tmp_path.iterdir()) == []
    assert min(used[0].values()) > 0
    if method == "fbr":
        assert used[1]["device"] == used[1]["host"] == 0
        assert used[2]["device"] > 0.9 * peak // 2, "the device is filled first"
        assert used[2]["host"] > 0
        assert used[2]["disk"] == used[3]["host"] == used[3]["disk"] == 0


@pytest.mark.parametrize("family", ["ldm8_church", "sd14_coco"])
def test_families_with_a_context_and_residual_resampling_learn_the_same(
    family: str, settings: Reconstruction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(range_search, "THRESHOLDS", 10)
    architecture, generator = tiny(family).architecture, torch.Generator().manual_seed(2)
    unet = random_network(build_unet(architecture), 1)
    rows: dict[str, Tensor] = {
        "latents": torch.randn(4, architecture.in_channels, 8, 8, generator=generator),
        "timesteps": torch.tensor([9, 700, 20, 333]),
    }
    if architecture.context_channels:
        rows["context"] = torch.randn(4, 5, architecture.context_channels, generator=generator)
    bits = Bits(weights=4, activations=8, range_bins=64)
    first = quantized_copy(unet, bits)
    set_ranges(first, Rows(rows), bits)
    found = grids(first)

    def task() -> Task:
        quantized = quantized_copy(unet, bits)
        set_grids(quantized, found)
        changed = settings.model_copy(update={"batch_size": 2, "chain_batch_size": 2})
        return Task(unet, quantized, trace_units(unet), Rows(rows), 0, changed, UnitsInMemory())

    expected = learned_state(task())
    peak = demand(unet, trace_units(unet), Rows(rows), settings).of_peak()
    assert same(learned_state(limited(task(), peak // 5, peak // 5, tmp_path)), expected)


@pytest.mark.parametrize("method", ["fbr"])
def test_a_run_that_is_killed_goes_on_with_other_limits_exactly(
    make_task: Callable[[UnitStore], Task], tmp_path: Path
) -> None:
    expected, scratch = learned_state(make_task(UnitsInMemory())), tmp_path / "scratch"
    unit_store, finished = FolderUnitStore(tmp_path / "units"), []

    def killed(units: int) -> None:
        finished.append(units)
        if len(finished) == 4:
            raise KeyboardInterrupt

    first = limited(make_task(unit_store), 1 << 14, 1 << 14, scratch)
    first.__dict__["on_unit"] = killed
    with pytest.raises(KeyboardInterrupt):
        learned_state(first)
    assert list(scratch.iterdir()) == []
    assert same(learned_state(limited(make_task(unit_store), 1 << 16, 1 << 15, scratch)), expected)
    assert list(scratch.iterdir()) == []


def test_waiting_passes_hold_no_more_memory_than_allowed_and_end_as_without_limits(
    float_unet: UNet2DModel, calibration: Calibration, tmp_path: Path
) -> None:
    names = [unit.name for unit in trace_units(float_unet)]
    with torch.no_grad():
        expected = float_unet(*calibration).sample
    memory = Memory(CPU, Limits(device=60_000, host=40_000, scratch=tmp_path))
    network = PausingNetwork(float_unet, names, memory)
    passes = [network.start(batch) for batch in as_rows(calibration).split(2)]
    resident, outputs = [], []
    for name in names:
        for waiting in passes:
            output = waiting.run_unit()
            if name == names[-1]:
                outputs.append(output.clone())
            del output
            waiting.next_unit()
        assert all(waiting._waiting is not None for waiting in passes)
        resident.append(sum(waiting._waiting.bytes_alive() for waiting in passes if waiting._waiting))
        assert resident[-1] <= memory.storage.used["device"] <= 60_000
        assert memory.storage.used["host"] <= 40_000
    network.close()
    assert max(resident) > 30_000
    assert memory.storage.most["disk"] > 100_000
    assert memory.storage.used == dict.fromkeys(TIERS, 0)
    for output, batch in zip(outputs, expected.split(2), strict=True):
        torch.testing.assert_close(output, batch, rtol=1e-4, atol=1e-5)


def test_tables_take_the_fastest_tier_with_room_the_largest_first() -> None:
    sizes = {"inputs": 60, "target": 30, "layer:a": 25, "others": 5}
    assert placed(sizes, Limits()) == dict.fromkeys(sizes, "device")
    expected = {"inputs": "host", "target": "device", "layer:a": "host", "others": "device"}
    assert placed(sizes, Limits(device=40, host=90, scratch=Path())) == expected
    assert placed(sizes, Limits(device=0, host=0, scratch=Path())) == dict.fromkeys(sizes, "disk")
    assert placed({"inputs": 1}, Limits(device=UNLIMITED, host=0)) == {"inputs": "device"}


def test_tables_drive_out_what_waits_and_newcomers_what_has_waited_longer(tmp_path: Path) -> None:
    memory = Memory(CPU, Limits(device=100, host=60, scratch=tmp_path))
    tensors = [torch.full((50,), value, dtype=torch.uint8) for value in range(4)]
    first, second = (memory.keep(tensor.untyped_storage()) for tensor in tensors[:2])
    third = memory.keep(tensors[2].untyped_storage())
    assert [held.reservation.tier for held in (first, second, third)] == ["device", "device", "host"], (
        "nobody has waited for longer"
    )
    second.pauses = 1
    fourth = memory.keep(tensors[3].untyped_storage())
    assert [held.reservation.tier for held in (first, second, third, fourth)] == [
        "device",
        "disk",
        "host",
        "device",
    ]
    assert memory.place({"a": 60, "b": 40}) == {"a": "device", "b": "device"}
    assert [held.reservation.tier for held in (first, fourth)] == ["disk", "disk"]
    assert all(tensor.untyped_storage().nbytes() == 0 for tensor in tensors)
    for held, tensor in zip((first, second, third, fourth), tensors, strict=True):
        memory.bring_back(held, tensor.untyped_storage())
    assert [tensor.unique().tolist() for tensor in tensors] == [[0], [1], [2], [3]]
    assert memory.storage.used == dict.fromkeys(TIERS, 0)


def test_passes_that_pause_again_give_way_to_later_ones(tmp_path: Path) -> None:
    memory = Memory(CPU, Limits(device=100, host=100, scratch=tmp_path))
    passes = [PausedMemory(memory) for _ in range(3)]
    kept = []

    def waiting(index: int) -> Tensor:
        with passes[index]:
            kept.append(torch.full((60,), index, dtype=torch.uint8))
        passes[index].settle()
        return kept[-1]

    first, second = waiting(0), waiting(1)
    assert [tensor.untyped_storage().nbytes() for tensor in (first, second)] == [60, 0], (
        "both have just arrived"
    )
    passes[0].settle()
    third = waiting(2)
    assert [tensor.untyped_storage().nbytes() for tensor in (first, second, third)] == [0, 0, 60]


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    memory = Memory(CPU, Limits(device=0, host=0, scratch=tmp_path))
    with pytest.raises(EdadmError, match=r"takes no more than the 0\.000 GiB that are there"):
        memory.storage.allocate(1 << 60, "disk")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(EdadmError, match="no folder was given"):
        Memory(CPU, Limits(device=0, host=0)).keep(torch.ones(1).untyped_storage())


def test_pages_of_ended_blocks_are_used_again_within_the_limit() -> None:
    tiers = TieredStorage(CPU, Limits(host=100))
    first, second = tiers.allocate(40, "host"), tiers.allocate(40, "host")
    tiers.free(first, unshared=True)
    assert len(tiers._spare) == 1
    other = tiers.allocate(50, "host")  # with it, 90 of 100 are used: no room for spare ones
    assert tiers._spare == []
    tiers.free(other)
    assert tiers._spare == []  # its content may be in somebody's hands
    assert second.content is not None
    pages = second.content.data_ptr()
    tiers.free(second, unshared=True)
    third = tiers.allocate(40, "host")
    assert third.content is not None
    assert third.content.data_ptr() == pages
    assert tiers._spare == []
    assert tiers.used["host"] == 40


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="resident memory is read from /proc")
def test_host_memory_that_is_freed_leaves_the_process() -> None:
    def resident() -> int:
        return (
            int(
                next(
                    line
                    for line in Path("/proc/self/status").read_text().splitlines()
                    if line.startswith("RssAnon")
                ).split()[1]
            )
            * 1024
        )

    size, tiers = 21 * 2**20, TieredStorage(CPU, Limits())
    tiers.free(
        tiers.allocate(size, "host")
    )  # from now on the allocator would keep blocks of this size for later
    before, blocks, between = resident(), [], []
    for _ in range(20):
        blocks.append(tiers.allocate(size, "host"))
        blocks[-1].content.fill_(1)
        between.append(torch.ones(1000))
    assert resident() - before > 19 * size
    for block in blocks:
        tiers.free(block)
    assert resident() - before < 2 * size
