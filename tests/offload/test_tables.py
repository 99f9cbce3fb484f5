"""Tables that fill with rows, each in its tier."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edadm.offload.cache import Memory
from edadm.offload.limits import TIERS, Limits
from edadm.offload.tables import RowTables, joined_strides


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_tables_are_laid_out_as_if_their_batches_were_joined(layout: torch.memory_format) -> None:
    batch = torch.randn(3, 4, 2, 2).contiguous(memory_format=layout)
    assert joined_strides(batch) == torch.cat([batch, batch]).stride()
    turned = torch.randn(3, 4, 5).transpose(1, 2)
    assert joined_strides(turned) == torch.cat([turned, turned]).stride()


def test_tables_hold_the_rows_of_all_batches_in_order_in_the_tier_of_their_group(tmp_path: Path) -> None:
    memory = Memory(torch.device("cpu"), Limits(device=64, host=0, scratch=tmp_path))
    tables = RowTables(memory, 4, {"inputs": 2 * 4 * 3 * 4, "target": 4 * 4})
    assert tables.far == {"inputs"}
    assert memory.storage.used == {"device": 16, "host": 0, "disk": 96}
    one, other, target = torch.randn(4, 3), torch.randn(4, 3), torch.randn(4)
    for rows in (slice(0, 3), slice(3, 4)):
        tables.add("inputs", ("b", 0), one[rows])
        tables.add("inputs", ("a", 0), other[rows])
        tables.add("target", (), target[rows])
    found = tables.group("inputs")
    assert list(found) == [("b", 0), ("a", 0)]
    assert torch.equal(found["b", 0], one)
    assert torch.equal(found["a", 0], other)
    assert torch.equal(tables.group("target")[()], target)
    assert memory.storage.used == {"device": 16, "host": 0, "disk": 96}, "what was reserved is what is used"
    tables.free()
    assert tables.group("inputs") == {}
    assert memory.storage.used == dict.fromkeys(TIERS, 0)
