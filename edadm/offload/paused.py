"""The memory of paused passes: storages that a pass holds are offloaded while it waits."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from edadm.offload.cache import Memory
from edadm.offload.storage import OffloadedStorage
from edadm.offload.tracker import StorageTracker


class PausedMemory(StorageTracker):
    """The memory of one paused pass; a storage comes back before an operation of the pass that uses it.

    Operations are those of PyTorch; a Triton kernel is not seen, but `empty_like` of its input before it is.
    What a unit is called with comes back before the unit runs.
    """

    def __init__(self, memory: Memory):
        super().__init__()
        self._memory = memory
        self._kept: dict[int, OffloadedStorage] = {}

    def use(self, given: Sequence[torch.UntypedStorage]) -> None:
        """Brings back those of the storages that are away."""
        for storage in given:
            offloaded = self._kept.get(storage._cdata)
            if offloaded is not None and offloaded.is_away:
                self._memory.bring_back(offloaded, storage)
                del self._kept[storage._cdata]

    def settle(self) -> None:
        """The pass waits from now on: every storage that it still refers to is kept within the limits."""
        alive = self.alive()
        for address in [address for address in self._kept if address not in alive]:
            self._memory.give_up(self._kept.pop(address))
        for offloaded in self._kept.values():
            offloaded.pauses += 1
        for address, storage in alive.items():
            if address not in self._kept and storage.nbytes() > 0:
                self._kept[address] = self._memory.keep(storage)
