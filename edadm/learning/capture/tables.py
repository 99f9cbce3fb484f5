"""The tables that a unit learns from: filled from paused passes, and read row by row in learning steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from edadm.learning.capture.arguments import Arguments
from edadm.learning.capture.data import UnitData
from edadm.offload.cache import Memory
from edadm.offload.prefetch import Prefetch
from edadm.offload.tables import RowTables

INPUTS, OTHERS, TARGET, LAYER = (
    "inputs",
    "others",
    "target",
    "layer:",
)  # groups of tables; LAYER before a name


class UnitTables(RowTables):
    """A unit's tables: arguments of the unit in each network, and the float unit's outputs.

    Args:
        memory, rows: see `RowTables`.
        sizes: bytes of each group: `inputs` (main arguments), `others`, `target`, `layer:NAME`.
    """

    def __init__(self, memory: Memory, rows: int, sizes: Mapping[str, int]):
        super().__init__(memory, rows, sizes)
        self._fixed: dict[str, dict[int | str, Any]] = {}
        self._layers: list[str] = []

    def add_arguments(self, network: str, arguments: Arguments) -> None:
        """The next rows of the tables of arguments that the unit of a network is called with."""
        for name, batch in arguments.tensors.items():
            self.add(INPUTS if name == arguments.main else OTHERS, (network, name), batch)
        self._fixed[network] = arguments.others

    def add_targets(self, target: Tensor, layers: Mapping[str, Tensor]) -> None:
        """The next rows of the tables of the float unit's output and of its inner layers' outputs."""
        self.add(TARGET, (), target)
        self._layers = list(layers)
        for name, output in layers.items():
            self.add(LAYER + name, (), output)

    def arguments(self, network: str) -> Arguments:
        """The tables of arguments that the unit of a network is called with, the main one first."""
        tables = {**self.group(INPUTS), **self.group(OTHERS)}
        return Arguments({name: t for (of, name), t in tables.items() if of == network}, self._fixed[network])

    def data(self, quantized: str, exact: str, held_out: int, channels_last: bool) -> UnitData:
        """All tables as the unit's data, by the names of the networks whose arguments they hold."""
        layers = {name: self.group(LAYER + name)[()] for name in self._layers}
        streams = {network: self.arguments(network) for network in {quantized, exact}}
        target = self.group(TARGET)[()]
        return UnitData(streams[quantized], streams[exact], target, layers, held_out, channels_last, self.far)


class StepData:
    """A unit's data as learning steps read it: prefetched rows stand for tables that are offloaded.

    Args:
        data: of the unit; tables of the groups in `data.far` lie in host memory or in page files.
        drawn: rows of every step, on the device, (iterations, k).

    Attributes:
        data: what a step reads, all on the device.
    """

    def __init__(self, data: UnitData, drawn: Int[Tensor, "iterations k"]):
        self._far = data.far
        self._all = torch.arange(drawn.shape[1], device=drawn.device)
        self._prefetch = Prefetch(drawn) if data.far else None
        self.data = self._near_data(data) if data.far else data

    def rows(self, group: str, drawn: Int[Tensor, " k"]) -> Int[Tensor, " k"]:
        """The places of the rows `drawn` in the tables of a group in `data`."""
        return self._all if group in self._far else drawn

    def bring(self, step: int) -> None:
        """Prefetches the rows of a step."""
        if self._prefetch is not None:
            self._prefetch.bring(step)

    def _near(self, group: str, table: Tensor) -> Tensor:
        """A table that is on the device, or the buffer for its rows."""
        if self._prefetch is None or group not in self._far:
            return table
        return self._prefetch.buffer(table)

    def _near_arguments(self, given: Arguments, names: set[int | str]) -> Arguments:
        tensors = {
            name: self._near(INPUTS if name == given.main else OTHERS, table)
            for name, table in given.tensors.items()
            if name in names
        }
        return Arguments(tensors, given.others)

    def _near_data(self, data: UnitData) -> UnitData:
        targets = {name: self._near(LAYER + name, table) for name, table in data.layer_targets.items()}
        return dataclasses.replace(
            data,
            quantized=self._near_arguments(data.quantized, set(data.quantized.tensors)),
            exact=self._near_arguments(data.exact, {data.exact.main}),  # steps read no more of it
            target=self._near(TARGET, data.target),
            layer_targets=targets,
        )
