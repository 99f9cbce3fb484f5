"""Storages of paused passes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from edadm.offload.cache import Memory
from edadm.offload.limits import Limits
from edadm.offload.paused import PausedMemory

CPU = torch.device("cpu")


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
