"""Rows of a step, brought from tables that are elsewhere."""

from __future__ import annotations

import torch

from edadm.offload.prefetch import Prefetch, flat_rows


def test_flat_rows_are_rows_in_the_order_of_memory() -> None:
    table = torch.randn(5, 3, 2, 4).contiguous(memory_format=torch.channels_last)
    assert torch.equal(flat_rows(table)[2], table[2].permute(1, 2, 0).flatten())
    assert flat_rows(table).data_ptr() == table.data_ptr()


def test_buffers_hold_the_rows_of_a_step_as_their_tables_lay_them_out() -> None:
    drawn = torch.tensor([[3, 1], [0, 4], [2, 2]])
    tables = [torch.randn(5, 3), torch.randn(5, 3, 2, 4).contiguous(memory_format=torch.channels_last)]
    prefetch = Prefetch(drawn)
    buffers = [prefetch.buffer(table) for table in tables]
    assert prefetch.buffer(tables[0]) is buffers[0]
    assert buffers[1].stride() == tables[1].stride()
    for step in (0, 2, 1):
        prefetch.bring(step)
        for table, buffer in zip(tables, buffers, strict=True):
            assert torch.equal(buffer, table[drawn[step]])
