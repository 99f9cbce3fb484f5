"""The rows of a learning step on the device, when the tables they come from are elsewhere."""

from __future__ import annotations

import dataclasses

import torch
from jaxtyping import Int
from torch import Tensor

from edadm.learning.data import Arguments, UnitData
from edadm.learning.demand import INPUTS, LAYER, OTHERS, TARGET


def flat_rows(table: Tensor) -> Tensor:
    """A dense table as (rows, elements of a row), whatever the layout of its rows."""
    size = table[0].numel()
    return table.as_strided((len(table), size), (size, 1))


class StepData:
    """A unit's data as learning steps see it: far tables are replaced by buffers with the rows of one step.

    Which rows a step draws is known beforehand, so that a step finds the same numbers at other places, and
    learns the same. On a GPU rows are gathered in pinned memory, in two places by turns: those of a step
    while the one before is computed.

    Args:
        data: of the unit; groups in `data.far` lie in host memory or in mapped files.
        drawn: rows of every step, on the device, (iterations, k).

    Attributes:
        data: what a step reads, all on the device.
    """

    def __init__(self, data: UnitData, drawn: Int[Tensor, "iterations k"]):
        self._device, self._count = drawn.device, drawn.shape[1]
        self._far = data.far
        self._drawn = drawn.cpu() if data.far else drawn
        self._all = torch.arange(self._count, device=self._device)
        self._sources: list[tuple[Tensor, Tensor, list[Tensor]]] = []
        self._copied: list[torch.cuda.Event | None] = [None, None]
        self.data = self._brought(data) if data.far else data

    def rows(self, group: str, drawn: Int[Tensor, " k"]) -> Int[Tensor, " k"]:
        """Where the rows `drawn` are in the tables of a group in `data`."""
        return self._all if group in self._far else drawn

    def bring(self, step: int) -> None:
        """Fills the buffers for a step; the copies go before whatever the current stream does next."""
        if not self._sources:
            return
        rows, turn = self._drawn[step], step % 2
        copied = self._copied[turn]
        if copied is not None:
            copied.synchronize()  # the gathering place is free again
        for source, buffer, places in self._sources:
            if places:
                torch.index_select(source, 0, rows, out=places[turn])
                buffer.copy_(places[turn], non_blocking=True)
            else:
                torch.index_select(source, 0, rows, out=buffer)
        if self._device.type == "cuda":
            self._copied[turn] = torch.cuda.current_stream(self._device).record_event()

    def _brought(self, data: UnitData) -> UnitData:
        buffers: dict[int, Tensor] = {}  # networks may share a table

        def near(group: str, table: Tensor) -> Tensor:
            if group not in self._far:
                return table
            if id(table) not in buffers:
                buffers[id(table)] = self._buffer(table)
            return buffers[id(table)]

        def arguments(given: Arguments, names: set[int | str]) -> Arguments:
            tensors = {
                n: near(INPUTS if n == given.main else OTHERS, table)
                for n, table in given.tensors.items()
                if n in names
            }
            return Arguments(tensors, given.others)

        return dataclasses.replace(
            data,
            quantized=arguments(data.quantized, set(data.quantized.tensors)),
            exact=arguments(data.exact, {data.exact.main}),  # steps read no more of it
            target=near(TARGET, data.target),
            layer_targets={name: near(LAYER + name, table) for name, table in data.layer_targets.items()},
        )

    def _buffer(self, table: Tensor) -> Tensor:
        """Room for the rows of one step, each laid out like those of the table."""
        shape = (self._count, *table.shape[1:])
        buffer = torch.empty_strided(shape, table.stride(), dtype=table.dtype, device=self._device)
        flat, pinned = flat_rows(buffer), self._device.type == "cuda"
        places = (
            [torch.empty(flat.shape, dtype=table.dtype, pin_memory=True) for _ in self._copied]
            if pinned
            else []
        )
        self._sources.append((flat_rows(table), flat, places))
        return buffer
