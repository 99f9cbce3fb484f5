"""A unit store that keeps nothing, for quantization in memory, which is not resumed."""

from __future__ import annotations

from edadm.learning.unit_store import FinishedUnit
from edadm.networks.units.unit import Unit


class NoUnitStore:
    """A unit store that keeps nothing."""

    def get(self, index: int, unit: Unit) -> FinishedUnit | None:
        """No unit was finished before."""
        return None

    def put(self, index: int, unit: Unit, finished: FinishedUnit) -> None:
        """The unit is in the network; nothing else is kept."""
