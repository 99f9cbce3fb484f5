"""Limits of memory change nothing of what is learned but where it is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from edadm.config.schema import Bits, Reconstruction
from edadm.config.schema import Memory as MemorySettings
from edadm.deploy.grids import grids, quantized_copy, set_grids
from edadm.errors import EdadmError
from edadm.learning import chain
from edadm.learning.capture.demand import demand
from edadm.learning.task import Task
from edadm.learning.unit_store import FolderUnitStore, UnitStore
from edadm.networks.build import build_network
from edadm.networks.inputs import Rows
from edadm.networks.units.trace import trace_units
from edadm.offload import limits
from edadm.offload.cache import Memory
from edadm.offload.limits import GIB, Limits
from edadm.passes.methods import run_method
from edadm.passes.ranges import set_ranges
from edadm.quant import ranges as range_search

from ..networks.families import random_network, tiny
from .runs import Calibration, UnitsInMemory, a_task, same, state


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
    task = make_task(UnitsInMemory())
    needed = demand(task.float_unet, task.units, task.inputs, task.settings)
    peak = needed.of_peak()
    monkeypatch.setattr(chain, "Memory", Spy)
    used = []
    chained = ((0, 0), (peak // 2, peak), (peak, 0)) if method == "fbr" else ()
    for device, host in ((peak // 4, peak // 4), *chained):
        found = learned_state(limited(make_task(UnitsInMemory()), device, host, tmp_path))
        assert same(found, expected), (device, host)
        kept = Spy.made.storage
        used.append(dict(kept.most))
        assert set(kept.used.values()) == {0}, "everything was given back"
        if Spy.made.is_limited:
            assert kept.most["device"] <= device
            assert kept.most["host"] <= host
            assert sum(kept.most.values()) >= 0.9 * peak
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
    unet = random_network(build_network(architecture), 1)
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


def test_the_refusal_comes_before_any_unit_is_learned(
    float_unet: UNet2DModel,
    gridded: Callable[[], nn.Module],
    calibration: Calibration,
    settings: Reconstruction,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    monkeypatch.setattr(chain, "learn_unit", None)
    task = a_task(float_unet, gridded(), calibration, settings, UnitsInMemory())
    task.__dict__.update(memory=MemorySettings(device=0, host=0), scratch=tmp_path)
    with pytest.raises(EdadmError, match="the disk would have to take"):
        chain.learn_chain(task)
    assert not any(module._forward_hooks for module in float_unet.modules())
