"""The cache under limits: storages of paused passes take the memory that tables leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from edadm.offload.demand import Demand
from edadm.offload.limits import TIERS, UNLIMITED, Budget, Limits, Tier, placed, refuse_too_little, resolved
from edadm.offload.storage import OffloadedStorage, TieredStorage


class Memory:
    """The memory of all that is kept between computations, in tiers.

    Args:
        device: where the networks are.
        limits: of each tier.

    Attributes:
        storage: counts and allocates.
    """

    def __init__(self, device: torch.device, limits: Limits):
        self.limits = limits
        self.storage = TieredStorage(device, limits)
        self._waiting: dict[OffloadedStorage, None] = {}  # in order of arrival

    @classmethod
    def within(cls, budget: Budget, device: torch.device, needed: Demand, work: int) -> Memory:
        """The memory that a budget grants for a demand.

        Args:
            budget, device, needed, work: see `edadm.offload.limits.resolved`.

        Raises:
            EdadmError: a tier cannot hold what it would have to.
        """
        limits = resolved(budget, device, needed, work)
        refuse_too_little(needed, limits)
        # With room for everything nothing ever leaves the device, and passes need not be tracked.
        return cls(device, limits if limits.device < needed.of_peak() else Limits())

    @property
    def is_limited(self) -> bool:
        """The memory is limited if any storage may have to leave the device."""
        return self.limits.device < UNLIMITED

    def place(self, sizes: Mapping[str, int]) -> dict[str, Tier]:
        """The tiers of tables whose bytes are given; storages of paused passes make room for them there."""
        places = placed(sizes, self.limits)
        for tier in TIERS[:-1]:
            needed = sum(size for name, size in sizes.items() if places[name] == tier)
            waiting = [offloaded for offloaded in self._waiting if offloaded.reservation.tier == tier]
            self._make_room(tier, needed, waiting)
        return places

    def keep(self, storage: torch.UntypedStorage) -> OffloadedStorage:
        """Keeps a storage of a paused pass.

        It stays on the device if there is room, or if others there have waited for longer and give way.
        """
        size = storage.nbytes()
        if size > self.storage.room("device"):
            waiting = (offloaded for offloaded in self._waiting if offloaded.reservation.tier == "device")
            longer = [offloaded for offloaded in waiting if offloaded.pauses > 0]
            freed = sum(offloaded.reservation.size for offloaded in longer)
            if size <= self.storage.room("device") + freed:
                self._make_room("device", size, longer)
        tier: Tier = "device" if size <= self.storage.room("device") else self._below("device", size)
        offloaded = OffloadedStorage(storage, self.storage, tier)
        self._waiting[offloaded] = None
        return offloaded

    def give_up(self, offloaded: OffloadedStorage) -> None:
        """Forgets a storage that nobody refers to any more."""
        offloaded.release()
        self._waiting.pop(offloaded, None)

    def bring_back(self, offloaded: OffloadedStorage, storage: torch.UntypedStorage) -> None:
        """Brings a storage back to the device, where it is not counted until it is kept again."""
        offloaded.bring_back(storage)
        self._waiting.pop(offloaded, None)

    def _below(self, tier: Tier, size: int) -> Tier:
        """The fastest tier below another one that has room."""
        lower = TIERS[TIERS.index(tier) + 1 :]
        return next((one for one in lower if size <= self.storage.room(one)), "disk")

    def _make_room(self, tier: Tier, size: int, candidates: Sequence[OffloadedStorage]) -> None:
        """Moves candidates to lower tiers, one after another, until so many bytes have room."""
        for offloaded in candidates:
            if size <= self.storage.room(tier):
                return
            offloaded.move(self._below(tier, offloaded.reservation.size))
