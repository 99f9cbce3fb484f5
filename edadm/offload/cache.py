"""What reconstruction keeps, under limits: a unit's tables come first, paused passes take the memory that these leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from edadm.offload.storage import TIERS, UNLIMITED, Limits, OffloadedStorage, Tier, TieredStorage


def placed(sizes: Mapping[str, int], limits: Limits) -> dict[str, Tier]:
    """The tier of each table, the largest first: the fastest one that still has room beside those before."""
    left = {tier: limits.of(tier) for tier in TIERS}
    places: dict[str, Tier] = {}
    for name, size in sorted(sizes.items(), key=lambda item: -item[1]):
        tier: Tier = next((tier for tier in TIERS if size <= left[tier]), "disk")
        places[name] = tier
        left[tier] -= size
    return places


class Memory:
    """All that is kept between computations, in tiers.

    Args:
        device: where the networks are.
        limits: of each tier.
    """

    def __init__(self, device: torch.device, limits: Limits):
        self.limits, self.storage = limits, TieredStorage(device, limits)
        self._waiting: dict[OffloadedStorage, None] = {}  # in order of arrival

    @property
    def is_limited(self) -> bool:
        """Whether anything may have to leave the device."""
        return self.limits.device < UNLIMITED

    def place(self, sizes: Mapping[str, int]) -> dict[str, Tier]:
        """TieredStorage for the tables of a unit, whose bytes are given; what waits there makes room."""
        places = placed(sizes, self.limits)
        for tier in TIERS[:-1]:
            needed = sum(size for name, size in sizes.items() if places[name] == tier)
            self._make_room(tier, needed, [held for held in self._waiting if held.reservation.tier == tier])
        return places

    def keep(self, storage: torch.UntypedStorage) -> OffloadedStorage:
        """Keeps a storage of a paused pass: on the device if there is room, or if others there have waited for longer."""
        size = storage.nbytes()
        if size > self.storage.room("device"):
            longer = [held for held in self._waiting if held.reservation.tier == "device" and held.pauses > 0]
            if size <= self.storage.room("device") + sum(held.reservation.size for held in longer):
                self._make_room("device", size, longer)
        held = OffloadedStorage(
            storage,
            self.storage,
            "device" if size <= self.storage.room("device") else self._below("device", size),
        )
        self._waiting[held] = None
        return held

    def give_up(self, held: OffloadedStorage) -> None:
        """Forgets a storage that is not kept any more."""
        held.release()
        self._waiting.pop(held, None)

    def bring_back(self, held: OffloadedStorage, storage: torch.UntypedStorage) -> None:
        """Brings a storage back to the device, where it is not counted until it is kept again."""
        held.bring_back(storage)
        self._waiting.pop(held, None)

    def _below(self, tier: Tier, size: int) -> Tier:
        return next(
            (lower for lower in TIERS[TIERS.index(tier) + 1 :] if size <= self.storage.room(lower)), "disk"
        )

    def _make_room(self, tier: Tier, size: int, candidates: Sequence[OffloadedStorage]) -> None:
        for held in candidates:
            if size <= self.storage.room(tier):
                return
            held.move(self._below(tier, held.reservation.size))
