"""What reconstruction keeps, under limits: a unit's tables come first, paused passes take the memory that these leave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from edadm.reconstruction.tiers import TIERS, UNLIMITED, Held, Limits, Tier, Tiers
from edadm.reconstruction.watch import Watch


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
        self.limits, self.tiers = limits, Tiers(device, limits)
        self._waiting: dict[Held, None] = {}  # in order of arrival

    @property
    def is_limited(self) -> bool:
        """Whether anything may have to leave the device."""
        return self.limits.device < UNLIMITED

    def place(self, sizes: Mapping[str, int]) -> dict[str, Tier]:
        """Tiers for the tables of a unit, whose bytes are given; what waits there makes room."""
        places = placed(sizes, self.limits)
        for tier in TIERS[:-1]:
            needed = sum(size for name, size in sizes.items() if places[name] == tier)
            self._make_room(tier, needed, [held for held in self._waiting if held.block.tier == tier])
        return places

    def keep(self, storage: torch.UntypedStorage) -> Held:
        """Keeps a storage of a paused pass: on the device if there is room, or if others there have waited for longer."""
        size = storage.nbytes()
        if size > self.tiers.room("device"):
            longer = [held for held in self._waiting if held.block.tier == "device" and held.pauses > 0]
            if size <= self.tiers.room("device") + sum(held.block.size for held in longer):
                self._make_room("device", size, longer)
        held = Held(
            storage,
            self.tiers,
            "device" if size <= self.tiers.room("device") else self._below("device", size),
        )
        self._waiting[held] = None
        return held

    def give_up(self, held: Held) -> None:
        """Forgets a storage that is not kept any more."""
        held.release()
        self._waiting.pop(held, None)

    def bring_back(self, held: Held, storage: torch.UntypedStorage) -> None:
        """Brings a storage back to the device, where it is not counted until it is kept again."""
        held.bring_back(storage)
        self._waiting.pop(held, None)

    def _below(self, tier: Tier, size: int) -> Tier:
        return next(
            (lower for lower in TIERS[TIERS.index(tier) + 1 :] if size <= self.tiers.room(lower)), "disk"
        )

    def _make_room(self, tier: Tier, size: int, candidates: Sequence[Held]) -> None:
        for held in candidates:
            if size <= self.tiers.room(tier):
                return
            held.move(self._below(tier, held.block.size))


class WaitingMemory(Watch):
    """The memory of one paused pass. Active while the pass runs: what an operation needs and is away comes back first.

    Operations are those of PyTorch; a Triton kernel is not seen, but `empty_like` of its input before it is.
    What a unit is called with comes back before the unit runs.
    """

    def __init__(self, memory: Memory):
        super().__init__()
        self._memory = memory
        self._held: dict[int, Held] = {}

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
