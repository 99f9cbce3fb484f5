"""How much memory may be taken, and the sentence when that is too little."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import UNet2DModel
from torch import nn

from edadm.config.schema import Memory as MemorySettings
from edadm.config.schema import Reconstruction
from edadm.errors import EdadmError
from edadm.learning import chain, limits
from edadm.learning.demand import Demand, UnitBytes, demand
from edadm.learning.limits import free_host_bytes, on_disk, refuse_too_little, resolved
from edadm.networks.trace import trace_units
from edadm.networks.unit import Unit
from edadm.nn.insert import quantized_layers
from edadm.offload.storage import GIB, Limits

from ..conftest import as_rows
from .runs import Calibration, UnitsInMemory, a_task

CPU = torch.device("cpu")


def a_unit(name: str, inputs: int, target: int, waiting: int) -> UnitBytes:
    unit = Unit(name, "layer", (name,))
    return UnitBytes(
        unit, inputs, 0, {"target": target}, waiting, forward=2 * waiting, learning=target, rounding=100
    )


@pytest.fixture
def needed() -> Demand:
    """Tables of 50 and 40 bytes a row, 2 * 10 and 2 * 25 bytes that wait; 10 rows."""
    return Demand([a_unit("first", 20, 10, 10), a_unit("second", 15, 10, 25)], rows=10)


def test_the_most_is_kept_where_tables_and_passes_together_are_largest(needed: Demand) -> None:
    assert needed.largest_unit().unit.name == "first"
    assert needed.peak().unit.name == "second"
    assert needed.of_peak() == 10 * (40 + 50)
    settings = Reconstruction(batch_size=2, chain_batch_size=3)
    assert needed.of_work(settings) == max(100 + 5 * 2 * 10, 3 * 50)


@pytest.mark.parametrize(
    ("device", "host", "expected"),
    [
        (900, 0, 0),
        (450, 450, 0),
        (500, 300, 100),
        (299, 0, 601),  # the inputs, 300, fit nowhere
        (0, 0, 900),
    ],
)
def test_files_take_what_does_not_fit(
    needed: Demand, device: int, host: int, expected: int, tmp_path: Path
) -> None:
    assert on_disk(needed, Limits(device, host, tmp_path)) == expected


def test_too_little_of_everything_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = Demand([a_unit("mid_block", 20 * GIB, 10 * GIB, 10 * GIB)], rows=1)
    monkeypatch.setattr(limits.shutil, "disk_usage", lambda folder: SimpleNamespace(free=5 * GIB))
    refuse_too_little(needed, Limits(40 * GIB, 25 * GIB, tmp_path / "not" / "made"))
    with pytest.raises(EdadmError) as caught:
        refuse_too_little(needed, Limits(40 * GIB, 24 * GIB, tmp_path))
    assert str(caught.value) == (
        "reconstruction keeps 70 GiB at unit 'mid_block', of which 40 GiB may stay on the device and 24 GiB in host memory; "
        f"the disk would have to take 6 GiB, and {tmp_path} has 5 GiB free; make room there, raise memory.device or memory.host, or "
        "lower the calibration's size"
    )
    with pytest.raises(EdadmError, match="no folder has 0 GiB free"):
        refuse_too_little(needed, Limits(0, 0, None))


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


def test_without_wishes_the_limit_on_a_cpu_is_free_memory_less_a_margin_and_the_work(
    float_unet: UNet2DModel,
    gridded: Callable[[], nn.Module],
    calibration: Calibration,
    settings: Reconstruction,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needed, unet = demand(float_unet, trace_units(float_unet), as_rows(calibration), settings), gridded()
    monkeypatch.setattr(limits, "free_host_bytes", lambda: GIB)
    weights = sum(layer.weight.numel() for layer in quantized_layers(unet).values())
    rest = int(0.9 * GIB) - 5 * weights - needed.of_work(settings)
    assert resolved(MemorySettings(), CPU, needed, unet, settings, tmp_path) == Limits(rest, 0, tmp_path)
    assert resolved(MemorySettings(host=0.5), CPU, needed, unet, settings, tmp_path) == Limits(
        GIB // 2, 0, tmp_path
    )
    assert resolved(MemorySettings(device=0.25), CPU, needed, unet, settings, None) == Limits(
        GIB // 4, rest - GIB // 4, None
    )
    assert resolved(MemorySettings(device=2), CPU, needed, unet, settings, None) == Limits(2 * GIB, 0, None)
    assert resolved(MemorySettings(device=0.25, host=0.5), CPU, needed, unet, settings, None) == Limits(
        GIB // 4, GIB // 2, None
    )
    monkeypatch.setattr(limits, "free_host_bytes", lambda: 10)
    assert resolved(MemorySettings(), CPU, needed, unet, settings, tmp_path) == Limits(0, 0, tmp_path)


def test_a_gpu_keeps_what_it_has_free_and_is_not_asked_for_more(
    float_unet: UNet2DModel,
    gridded: Callable[[], nn.Module],
    calibration: Calibration,
    settings: Reconstruction,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needed, unet, gpu = (
        demand(float_unet, trace_units(float_unet), as_rows(calibration), settings),
        gridded(),
        torch.device("cuda:0"),
    )
    work = 5 * sum(layer.weight.numel() for layer in quantized_layers(unet).values()) + needed.of_work(
        settings
    )
    monkeypatch.setattr(limits, "free_host_bytes", lambda: GIB)

    def has_free(size: int) -> None:
        """All but 5 bytes of it by the driver's word, 12 held by this process, 7 of them in use."""
        for name, value in (
            ("mem_get_info", (size - 5, GIB)),
            ("memory_reserved", 12),
            ("memory_allocated", 7),
        ):
            monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)

    has_free(GIB // 2)
    assert resolved(MemorySettings(), gpu, needed, unet, settings, None) == Limits(
        int(0.9 * (GIB // 2)) - work, int(0.9 * GIB), None
    )
    assert resolved(MemorySettings(device=0.25), gpu, needed, unet, settings, None) == Limits(
        GIB // 4, int(0.9 * GIB), None
    )
    assert resolved(MemorySettings(device=80), gpu, needed, unet, settings, None).device == 80 * GIB, (
        "there is not so much to keep"
    )
    has_free(needed.of_peak() - 1)
    with pytest.raises(
        EdadmError,
        match=r"memory\.device asks for 80 GiB on cuda:0, which has 0\.\d+ GiB free; lower it, or leave it out",
    ):
        resolved(MemorySettings(device=80), gpu, needed, unet, settings, None)


def a_system(root: Path, groups: str, files: dict[str, str]) -> Path:
    """Files that tell of 8 GiB that the system can spare, and of control groups."""
    for name, text in {
        "proc/meminfo": "MemTotal: 9\nMemAvailable: 8388608 kB\n",
        "proc/self/cgroup": groups,
        **files,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_free_host_memory_is_what_the_system_can_spare_and_the_control_groups_allow(tmp_path: Path) -> None:
    assert free_host_bytes(a_system(tmp_path / "plain", "0::/\n", {})) == 8 * GIB
    stat = {"sys/fs/cgroup/job/memory.stat": "anon 5\ninactive_file 1073741824\n"}
    allowed = {
        "sys/fs/cgroup/job/memory.max": f"{4 * GIB}\n",
        "sys/fs/cgroup/job/memory.current": f"{2 * GIB}\n",
    }
    assert free_host_bytes(a_system(tmp_path / "two", "0::/job/step\n", {**allowed, **stat})) == 3 * GIB
    allowed["sys/fs/cgroup/job/memory.max"] = "max\n"
    assert free_host_bytes(a_system(tmp_path / "max", "0::/job/step\n", {**allowed, **stat})) == 8 * GIB
    one = {
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{GIB}\n",
        "sys/fs/cgroup/memory/job/memory.usage_in_bytes": f"{2 * GIB}\n",
        "sys/fs/cgroup/memory/job/memory.stat": "total_inactive_file 0\n",
    }
    assert free_host_bytes(a_system(tmp_path / "one", "4:memory:/job\n0::/\n", one)) == 0
    assert free_host_bytes() > 0
