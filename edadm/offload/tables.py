"""Tables of rows over all calibration samples, each in the memory tier that was chosen for its group."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from edadm.offload.cache import Memory
from edadm.offload.limits import Tier
from edadm.offload.storage import Reservation

Name = tuple[int | str, ...]


def joined_strides(batch: Tensor) -> tuple[int, ...]:
    """Strides that `torch.cat` gives the rows of several such batches.

    Asked of one byte a number and of no more than two rows a batch, behind which nothing changes; of `meta`
    torch would know only after it has imported sympy.
    """
    shape = (min(len(batch), 2), *batch.shape[1:])
    few = torch.empty_strided(shape, batch.stride(), dtype=torch.int8)
    return torch.cat([few, few]).stride()


class RowTables:
    """Tables fill with the rows of one batch after another, in order; nothing is copied twice.

    Args:
        memory: where tables are allocated; a reservation for each group is made at once.
        rows: of every table.
        sizes: bytes of each group of tables, whose tables share a tier.
    """

    def __init__(self, memory: Memory, rows: int, sizes: Mapping[str, int]):
        self._storage = memory.storage
        self._rows = rows
        self._places: dict[str, Tier] = memory.place(sizes)
        self._reserved = {
            group: self._storage.reserve(sizes[group], tier) for group, tier in self._places.items()
        }
        self._reservations = list(self._reserved.values())
        self._tables: dict[tuple[str, Name], Tensor] = {}
        self._filled: dict[tuple[str, Name], int] = {}

    @property
    def far(self) -> frozenset[str]:
        """Groups whose tables are not on the device."""
        return frozenset(group for group, tier in self._places.items() if tier != "device")

    def add(self, group: str, name: Name, batch: Tensor) -> None:
        """Appends the rows of a batch to one table of a group."""
        key = (group, name)
        first = self._filled.get(key, 0)
        if key not in self._tables:
            self._tables[key] = self._new(self._reserved[group], batch)
        self._tables[key][first : first + len(batch)].copy_(batch)
        self._filled[key] = first + len(batch)

    def group(self, group: str) -> dict[Name, Tensor]:
        """The tables of a group by name, in the order in which they were begun."""
        return {name: table for (of, name), table in self._tables.items() if of == group}

    def free(self) -> None:
        """Gives the memory back; whoever holds a table must have let it go."""
        self._tables.clear()
        for reservation in self._reservations:
            self._storage.free(reservation)

    def _new(self, reserved: Reservation, batch: Tensor) -> Tensor:
        """A table whose rows are laid out in memory as those of a batch."""
        shape = (self._rows, *batch.shape[1:])
        size = math.prod(shape) * batch.element_size()
        allocated = self._storage.allocate(size, reserved.tier, reserved)
        self._reservations.append(allocated)
        assert allocated.content is not None
        return allocated.content.view(batch.dtype).as_strided(shape, joined_strides(batch))
