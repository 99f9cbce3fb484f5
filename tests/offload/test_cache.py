"""What is kept under limits, and what gives way to what."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edadm.errors import EdadmError
from edadm.offload.cache import Memory
from edadm.offload.demand import Demand, UnitBytes
from edadm.offload.limits import TIERS, Budget, Limits

CPU = torch.device("cpu")


def test_tables_drive_out_what_waits_and_newcomers_what_has_waited_longer(tmp_path: Path) -> None:
    memory = Memory(CPU, Limits(device=100, host=60, scratch=tmp_path))
    tensors = [torch.full((50,), value, dtype=torch.uint8) for value in range(4)]
    first, second = (memory.keep(tensor.untyped_storage()) for tensor in tensors[:2])
    third = memory.keep(tensors[2].untyped_storage())
    assert [one.reservation.tier for one in (first, second, third)] == ["device", "device", "host"], (
        "nobody has waited for longer"
    )
    second.pauses = 1
    fourth = memory.keep(tensors[3].untyped_storage())
    assert [one.reservation.tier for one in (first, second, third, fourth)] == [
        "device",
        "disk",
        "host",
        "device",
    ]
    assert memory.place({"a": 60, "b": 40}) == {"a": "device", "b": "device"}
    assert [one.reservation.tier for one in (first, fourth)] == ["disk", "disk"]
    assert all(tensor.untyped_storage().nbytes() == 0 for tensor in tensors)
    for one, tensor in zip((first, second, third, fourth), tensors, strict=True):
        memory.bring_back(one, tensor.untyped_storage())
    assert [tensor.unique().tolist() for tensor in tensors] == [[0], [1], [2], [3]]
    assert memory.storage.used == dict.fromkeys(TIERS, 0)


def test_memory_is_limited_only_where_the_device_cannot_keep_everything(tmp_path: Path) -> None:
    needed = Demand([UnitBytes("only", {"inputs": 6}, 4, forward=4, step=0, parameters=0)], rows=10)
    enough = Memory.within(Budget(100, 0, tmp_path), CPU, needed, work=0)
    assert not enough.is_limited
    assert enough.limits == Limits()
    short = Memory.within(Budget(99, 7, tmp_path), CPU, needed, work=0)
    assert short.is_limited
    assert short.limits == Limits(99, 7, tmp_path)
    with pytest.raises(EdadmError, match="no folder has 0 GiB free"):
        Memory.within(Budget(99, 0), CPU, needed, work=0)
