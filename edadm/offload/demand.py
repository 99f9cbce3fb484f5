"""The demand for memory: bytes that are kept at each unit of a network, and most of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

STEP_SHARE = 5.0  # of what a plain backward pass would keep: an allowance for quantizers, masks and gradients


@dataclass(frozen=True)
class UnitBytes:
    """Bytes of memory that one unit of a network needs; per calibration row unless said otherwise.

    Attributes:
        name: of the unit.
        tables: what a table of each group keeps while the unit is worked on.
        waiting: what paused passes hold while they wait before the unit, all networks together: its
            arguments, skips, embeddings.
        forward: most that one pass holds at once on its way from here to the next unit, what waits included.
        step: what a plain backward pass through the unit would keep of one row.
        parameters: what the unit's parameters and their optimizer take; not per row.
    """

    name: str
    tables: Mapping[str, int]
    waiting: int
    forward: int
    step: int
    parameters: int


@dataclass(frozen=True)
class Demand:
    """Bytes of memory that working through all units of a network needs.

    Attributes:
        units: all units in order of execution.
        rows: of every table; a guided model has two per sample.
    """

    units: Sequence[UnitBytes]
    rows: int

    def table_sizes(self, unit: UnitBytes) -> dict[str, int]:
        """Bytes of a unit's tables over all rows, by group."""
        return {group: size * self.rows for group, size in unit.tables.items()}

    def of_tables(self, unit: UnitBytes) -> int:
        """Bytes of all tables of a unit."""
        return sum(self.table_sizes(unit).values())

    def of_passes(self, unit: UnitBytes) -> int:
        """Bytes of all paused passes that wait while a unit is worked on."""
        return self.rows * unit.waiting

    def of_unit(self, unit: UnitBytes) -> int:
        """Bytes that are kept at a unit, its tables and the paused passes together."""
        return self.of_tables(unit) + self.of_passes(unit)

    def largest_unit(self) -> UnitBytes:
        """The unit whose tables take most memory."""
        return max(self.units, key=self.of_tables)

    def peak(self) -> UnitBytes:
        """The unit at which most memory is kept."""
        return max(self.units, key=self.of_unit)

    def of_peak(self) -> int:
        """Most bytes that are kept at once; the budget divides them among device, host and page files."""
        return self.of_unit(self.peak())

    def of_work(self, step_rows: int, pass_rows: int) -> int:
        """Most device memory that a step or a pass takes beside what is kept; weights are not counted.

        Args:
            step_rows: of a step, which goes forward and backward through a unit.
            pass_rows: of one paused pass.
        """
        steps = (unit.parameters + int(STEP_SHARE * unit.step) * step_rows for unit in self.units)
        return max(*steps, *(unit.forward * pass_rows for unit in self.units))
