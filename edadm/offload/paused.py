"""The memory of paused passes: what a pass holds while it waits is offloaded, and comes back when it is used."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from edadm.offload.cache import Memory
from edadm.offload.storage import OffloadedStorage
from edadm.offload.tracker import StorageTracker


class PausedMemory(StorageTracker):
    """The memory of one paused pass. Active while the pass runs: what an operation needs and is away comes back first.

    Operations are those of PyTorch; a Triton kernel is not seen, but `empty_like` of its input before it is.
    What a unit is called with comes back before the unit runs.
    """

    def __init__(self, memory: Memory):
        super().__init__()
        self._memory = memory
        self._held: dict[int, OffloadedStorage] = {}

    def use(self, given: Sequence[torch.UntypedStorage]) -> None:
        """Brings back what is away."""
        for storage in given:
            held = self._held.get(storage._cdata)
            if held is not None and held.is_away:
                self._memory.bring_back(held, storage)
                del self._held[storage._cdata]

    def settle(self) -> None:
        """The pass waits from now on: everything that it still refers to is kept within the limits."""
        alive = self.alive()
        for address in [address for address in self._held if address not in alive]:
            self._memory.give_up(self._held.pop(address))
        for held in self._held.values():
            held.pauses += 1
        for address, storage in alive.items():
            if address not in self._held and storage.nbytes() > 0:
                self._held[address] = self._memory.keep(storage)
