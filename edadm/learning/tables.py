"""A unit's inputs and targets over all rows, each table in the tier that was chosen for it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from edadm.learning.data import Arguments, UnitData
from edadm.learning.demand import INPUTS, LAYER, OTHERS, TARGET
from edadm.offload.cache import Memory
from edadm.offload.storage import Reservation, Tier

Key = tuple[str, int | str]


def joined_strides(batch: Tensor) -> tuple[int, ...]:
    """Strides that `torch.cat` gives the rows of several such batches."""
    shape = torch.empty_strided(batch.shape, batch.stride(), dtype=batch.dtype, device="meta")
    return torch.cat([shape, shape]).stride()


class UnitTables:
    """Fills with the rows of one batch after another, in order; nothing is copied twice.

    Args:
        memory: where tables are allocated.
        rows: of every table.
        sizes: bytes of each group of tables: `inputs` of both networks, `others`, `target`, `layer:NAME`.
    """

    def __init__(self, memory: Memory, rows: int, sizes: Mapping[str, int]):
        self._memory, self._rows = memory, rows
        self._places: dict[str, Tier] = memory.place(sizes)
        self._reserved = {
            group: memory.storage.count(sizes[group], tier) for group, tier in self._places.items()
        }
        self._blocks = list(self._reserved.values())
        self._tables: dict[Key, Tensor] = {}
        self._filled: dict[Key, int] = {}
        self._fixed: dict[str, dict[int | str, Any]] = {}

    @property
    def far(self) -> frozenset[str]:
        """Groups that are not on the device."""
        return frozenset(group for group, tier in self._places.items() if tier != "device")

    def add(self, group: str, name: int | str, batch: Tensor) -> None:
        """The next rows of one table."""
        key, first = (group, name), self._filled.get((group, name), 0)
        if key not in self._tables:
            self._tables[key] = self._new(self._reserved[group.partition("/")[0]], batch)
        self._tables[key][first : first + len(batch)].copy_(batch)
        self._filled[key] = first + len(batch)

    def add_arguments(self, network: str, arguments: Arguments) -> None:
        """The next rows of what the unit of a network is called with."""
        for name, batch in arguments.tensors.items():
            self.add(f"{INPUTS if name == arguments.main else OTHERS}/{network}", name, batch)
        self._fixed[network] = arguments.others

    def add_targets(self, target: Tensor, layers: Mapping[str, Tensor]) -> None:
        """The next rows of the float unit's output and of its inner layers' outputs."""
        self.add(TARGET, "", target)
        for name, output in layers.items():
            self.add(LAYER + name, "", output)

    def arguments(self, network: str) -> Arguments:
        """What the unit of a network is called with, the main argument first, over all rows."""
        kinds = [f"{INPUTS}/{network}", f"{OTHERS}/{network}"]
        tables = {
            name: table for kind in kinds for (group, name), table in self._tables.items() if group == kind
        }
        return Arguments(tables, self._fixed[network])

    def data(self, quantized: str, exact: str, held_out: int, channels_last: bool) -> UnitData:
        """All of it."""
        layers = {
            group.removeprefix(LAYER): table
            for (group, _), table in self._tables.items()
            if group.startswith(LAYER)
        }
        streams = {network: self.arguments(network) for network in {quantized, exact}}
        target = self._tables[TARGET, ""]
        return UnitData(streams[quantized], streams[exact], target, layers, held_out, channels_last, self.far)

    def free(self) -> None:
        """Gives the memory back; whoever holds the data must have let it go."""
        self._tables.clear()
        for block in self._blocks:
            self._memory.storage.free(block)

    def _new(self, reserved: Reservation, batch: Tensor) -> Tensor:
        shape = (self._rows, *batch.shape[1:])
        block = self._memory.storage.allocate(
            math.prod(shape) * batch.element_size(), reserved.tier, reserved
        )
        self._blocks.append(block)
        assert block.content is not None
        return block.content.view(batch.dtype).as_strided(shape, joined_strides(batch))
