"""How much memory may be taken, where tables go, and the sentence when that is too little."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from edadm.errors import EdadmError
from edadm.offload import limits
from edadm.offload.demand import Demand, UnitBytes
from edadm.offload.limits import GIB, UNLIMITED, Budget, Limits, on_disk, placed, refuse_too_little, resolved

CPU = torch.device("cpu")


def a_unit(name: str, inputs: int, target: int, waiting: int) -> UnitBytes:
    tables = {"inputs": inputs, "target": target}
    return UnitBytes(name, tables, waiting, forward=2 * waiting, step=target, parameters=100)


@pytest.fixture
def needed() -> Demand:
    """Tables of 50 and 40 bytes a row, 20 and 50 bytes that wait; 10 rows."""
    return Demand([a_unit("first", 40, 10, 20), a_unit("second", 30, 10, 50)], rows=10)


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


def test_tables_take_the_fastest_tier_with_room_the_largest_first() -> None:
    sizes = {"inputs": 60, "target": 30, "layer:a": 25, "others": 5}
    assert placed(sizes, Limits()) == dict.fromkeys(sizes, "device")
    expected = {"inputs": "host", "target": "device", "layer:a": "host", "others": "device"}
    assert placed(sizes, Limits(device=40, host=90, scratch=Path())) == expected
    assert placed(sizes, Limits(device=0, host=0, scratch=Path())) == dict.fromkeys(sizes, "disk")
    assert placed({"inputs": 1}, Limits(device=UNLIMITED, host=0)) == {"inputs": "device"}


def test_too_little_of_everything_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = Demand([a_unit("mid_block", 40 * GIB, 10 * GIB, 20 * GIB)], rows=1)
    monkeypatch.setattr(limits.shutil, "disk_usage", lambda folder: SimpleNamespace(free=5 * GIB))
    refuse_too_little(needed, Limits(40 * GIB, 25 * GIB, tmp_path / "not" / "made"))
    with pytest.raises(EdadmError) as caught:
        refuse_too_little(needed, Limits(40 * GIB, 24 * GIB, tmp_path))
    assert str(caught.value) == (
        "reconstruction keeps 70 GiB at unit 'mid_block', of which 40 GiB may stay on the device and 24 GiB "
        f"in host memory; the disk would have to take 6 GiB, and {tmp_path} has 5 GiB free; make room there, "
        "raise memory.device or memory.host, or "
        "lower the calibration's size"
    )
    with pytest.raises(EdadmError, match="no folder has 0 GiB free"):
        refuse_too_little(needed, Limits(0, 0, None))


def test_a_budget_in_gib_is_whole_bytes_and_says_nothing_where_nothing_is_said() -> None:
    assert Budget.in_gib(0.25, None, Path("a")) == Budget(GIB // 4, None, Path("a"))
    assert Budget.in_gib(None, 0.0, None) == Budget(None, 0, None)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (Budget(), (int(0.9 * GIB) - 1000, 0)),
        (Budget(host=GIB // 2), (GIB // 2, 0)),
        (Budget(device=GIB // 4), (GIB // 4, int(0.9 * GIB) - 1000 - GIB // 4)),
        (Budget(device=2 * GIB), (2 * GIB, 0)),
        (Budget(device=GIB // 4, host=GIB // 2), (GIB // 4, GIB // 2)),
    ],
)
def test_without_wishes_the_limit_on_a_cpu_is_free_memory_less_a_margin_and_the_work(
    budget: Budget, expected: tuple[int, int], needed: Demand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "free_host_bytes", lambda: GIB)
    assert resolved(budget, CPU, needed, 1000) == Limits(*expected, None)
    monkeypatch.setattr(limits, "free_host_bytes", lambda: 10)
    assert resolved(Budget(scratch=Path("a")), CPU, needed, 1000) == Limits(0, 0, Path("a"))


def test_a_gpu_keeps_what_it_has_free_and_is_not_asked_for_more(
    needed: Demand, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = torch.device("cuda:0")
    monkeypatch.setattr(limits, "free_host_bytes", lambda: GIB)
    monkeypatch.setattr(limits, "free_gpu_bytes", lambda device: GIB)
    monkeypatch.setattr(limits, "own_gpu_bytes", lambda device: GIB // 2)  # a GPU for two
    host = int(0.9 * GIB)
    assert resolved(Budget(), gpu, needed, 1000) == Limits(int(0.9 * (GIB // 2)) - 1000, host, None)
    assert resolved(Budget(device=GIB, host=7), gpu, needed, 1000) == Limits(GIB, 7, None)
    there_is_not_so_much = resolved(Budget(device=80 * GIB), gpu, needed, 1000)
    assert there_is_not_so_much == Limits(80 * GIB, host, None)
    monkeypatch.setattr(limits, "free_gpu_bytes", lambda device: needed.of_peak() - 1)
    with pytest.raises(
        EdadmError,
        match=r"memory\.device asks for 80 GiB on cuda:0, which has [\de.-]+ GiB free; lower it, or leave it",
    ):
        resolved(Budget(device=80 * GIB), gpu, needed, 1000)
