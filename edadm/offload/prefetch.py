"""Prefetched rows: buffers on the device with the rows that one step draws from offloaded tables."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


def flat_rows(table: Tensor) -> Tensor:
    """A dense table as (rows, elements of a row), whatever the layout of its rows."""
    size = table[0].numel()
    return table.as_strided((len(table), size), (size, 1))


@dataclass(frozen=True)
class _Source:
    """A table and its buffer as flat rows, and the pinned host memory through which a GPU gets them."""

    table: Tensor
    buffer: Tensor
    pinned: tuple[Tensor, ...]


class Prefetch:
    """A prefetch fills buffers on the device with the rows that a step draws, before the step.

    Which rows a step draws is known beforehand, so that a step finds the same numbers at other places. On a
    GPU rows are gathered in pinned host memory, in two places by turns: those of a step while the one before
    is computed.

    Args:
        drawn: rows of every step, on the device, (steps, k).
    """

    def __init__(self, drawn: Int[Tensor, "steps k"]):
        self._device = drawn.device
        self._count = drawn.shape[1]
        self._drawn = drawn.cpu()
        self._buffers: dict[int, tuple[Tensor, Tensor]] = {}  # a table that is held keeps its id
        self._sources: list[_Source] = []
        self._copied: list[torch.cuda.Event | None] = [None, None]

    def buffer(self, table: Tensor) -> Tensor:
        """The buffer for the rows of an offloaded table, (k, ...); the same one every time."""
        if id(table) not in self._buffers:
            self._buffers[id(table)] = table, self._new_buffer(table)
        return self._buffers[id(table)][1]

    def bring(self, step: int) -> None:
        """Fills the buffers for a step; the copies go before whatever the current stream does next."""
        if not self._sources:
            return
        rows = self._drawn[step]
        turn = step % 2
        copied = self._copied[turn]
        if copied is not None:
            copied.synchronize()  # the pinned memory is free again
        for source in self._sources:
            if source.pinned:
                torch.index_select(source.table, 0, rows, out=source.pinned[turn])
                source.buffer.copy_(source.pinned[turn], non_blocking=True)
            else:
                torch.index_select(source.table, 0, rows, out=source.buffer)
        if self._device.type == "cuda":
            self._copied[turn] = torch.cuda.current_stream(self._device).record_event()

    def _new_buffer(self, table: Tensor) -> Tensor:
        """A buffer for the rows of one step, each laid out like those of the table."""
        shape = (self._count, *table.shape[1:])
        buffer = torch.empty_strided(shape, table.stride(), dtype=table.dtype, device=self._device)
        flat = flat_rows(buffer)
        turns = self._copied if self._device.type == "cuda" else []
        pinned = tuple(torch.empty(flat.shape, dtype=table.dtype, pin_memory=True) for _ in turns)
        self._sources.append(_Source(flat_rows(table), flat, pinned))
        return buffer
