"""Tiered storage: bytes on the device, in host memory and in page files while nobody computes with them."""

from __future__ import annotations

import mmap
import os
import tempfile
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from edadm.artifacts import placing
from edadm.errors import EdadmError
from edadm.offload.limits import GIB, TIERS, Limits, Tier


@dataclass(eq=False)
class Reservation:
    """A reservation of bytes in one memory tier.

    Attributes:
        tier: where they are.
        size: how many.
        content: (size,) uint8; None where nothing is allocated yet, and for a storage that is still its
            owner's.
    """

    tier: Tier
    size: int
    content: Tensor | None = None


@dataclass
class TieredStorage:
    """The tiered storage counts and allocates what is kept in each memory tier.

    Attributes:
        device: where computing happens; it may be the CPU, whose memory then plays both parts.
        limits: never exceeded.
        used: bytes that are reserved now, by tier.
        most: most that were reserved at once.
    """

    device: torch.device
    limits: Limits
    used: dict[Tier, int] = field(default_factory=lambda: dict.fromkeys(TIERS, 0))
    most: dict[Tier, int] = field(default_factory=lambda: dict.fromkeys(TIERS, 0))
    _spare: list[Tensor] = field(default_factory=list)  # unused host pages that the limit has room for

    def room(self, tier: Tier) -> int:
        """Bytes that can still be reserved in a tier."""
        return self.limits.of(tier) - self.used[tier]

    def reserve(self, size: int, tier: Tier) -> Reservation:
        """A reservation of bytes in a tier without their allocation: they are there already, or will be."""
        self.used[tier] += size
        self.most[tier] = max(self.most[tier], self.used[tier])
        return Reservation(tier, size)

    def allocate(self, size: int, tier: Tier, reserved: Reservation | None = None) -> Reservation:
        """A reservation with newly allocated content, drawn from an earlier one if that is given.

        Raises:
            EdadmError: the disk is full, or there is no folder for page files.
        """
        if reserved is not None:
            drawn = min(size, reserved.size)
            self.used[tier] -= drawn
            reserved.size -= drawn
        allocated = self.reserve(size, tier)
        if tier == "disk":
            allocated.content = self._page_file(size)
        elif tier == "host":
            allocated.content = self._host_memory(size)
        else:
            allocated.content = torch.empty(size, dtype=torch.uint8, device=self.device)
        return allocated

    def free(self, reservation: Reservation, unshared: bool = False) -> None:
        """A reservation ends; whoever still holds its content holds memory that is not counted.

        Args:
            reservation: not used any more.
            unshared: nobody holds its content, so that the next reservation may have its pages: new ones cost
                more than what is copied there.
        """
        self.used[reservation.tier] -= reservation.size
        if unshared and reservation.tier == "host" and reservation.content is not None:
            self._spare.append(reservation.content)
            self._shed()
        reservation.size = 0
        reservation.content = None

    def _host_memory(self, size: int) -> Tensor:
        """Host memory from spare pages of that size, or from new ones."""
        fitting = next((pages for pages in self._spare if len(pages) == size), None)
        if fitting is None:
            self._shed()
            return _pages(size)
        self._spare = [pages for pages in self._spare if pages is not fitting]
        return fitting

    def _shed(self) -> None:
        """Spare pages, oldest first, go back to the system until used and spare ones are within the limit."""
        spare = sum(len(pages) for pages in self._spare)
        while self._spare and self.used["host"] + spare > self.limits.host:
            spare -= len(self._spare.pop(0))

    def _page_file(self, size: int) -> Tensor:
        """Bytes of a page file without a name, which ends with the last reference to them or the process."""
        folder = self.limits.scratch
        if folder is None:
            raise EdadmError(
                f"{size / GIB:.3f} GiB are to be kept in a file, and no folder was given; "
                "name one, or raise the limits"
            )
        with placing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=folder)
        try:
            _lengthen(handle, size)
            return torch.from_file(name, shared=True, size=size, dtype=torch.uint8)
        except OSError as error:
            there = (self.used["disk"] - size) / GIB
            raise EdadmError(
                f"{folder} takes no more than the {there:.3f} GiB that are there ({error.strerror}); "
                "make room on that disk, or raise memory.device or memory.host"
            ) from None
        finally:
            os.close(handle)
            os.unlink(name)


def _pages(size: int) -> Tensor:
    """Host memory in pages of its own.

    PyTorch's allocator keeps freed memory for later, by which a process grows far beyond its limit.
    """
    if size == 0 or not hasattr(mmap, "MAP_PRIVATE"):
        return torch.empty(size, dtype=torch.uint8)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=torch.uint8)


def _lengthen(handle: int, size: int) -> None:
    """A file gets its length and, where the system can, its space on the disk.

    A sparse file would kill the process that writes to its pages when the disk is full.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        os.ftruncate(handle, size)


def as_bytes(storage: torch.UntypedStorage) -> Tensor:
    """A storage as a tensor, (bytes,) uint8."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


class OffloadedStorage:
    """An offloaded storage is counted on the device, or copied to another tier and emptied until it is used.

    Attributes:
        reservation: where its bytes are.
        pauses: for how many pauses it has waited untouched.
    """

    def __init__(self, storage: torch.UntypedStorage, tiers: TieredStorage, tier: Tier):
        self._reference = StorageWeakRef(storage)
        self._tiers = tiers
        self.pauses = 0
        if tier == "device":
            self.reservation = tiers.reserve(storage.nbytes(), "device")
        else:
            self.reservation = self._copy(as_bytes(storage), tier)
            storage.resize_(0)

    @property
    def is_away(self) -> bool:
        """The storage is away while it is empty, its bytes in another tier."""
        return self.reservation.content is not None

    def move(self, tier: Tier) -> None:
        """Copies the storage's bytes to another tier and ends the reservation that they had."""
        storage = None if self.is_away else torch.UntypedStorage._new_with_weak_ptr(self._reference.cdata)
        content = self.reservation.content if storage is None else as_bytes(storage)
        if content is None:  # nobody can want it any more
            return self.release()
        moved = self._copy(content, tier)
        if storage is not None:
            storage.resize_(0)
        self.release()
        self.reservation = moved
        return None

    def bring_back(self, storage: torch.UntypedStorage) -> None:
        """Makes the storage what it was."""
        assert self.reservation.content is not None
        storage.resize_(self.reservation.size)
        as_bytes(storage).copy_(self.reservation.content)
        self.release()

    def release(self) -> None:
        """Ends the storage's reservation."""
        self._tiers.free(self.reservation, unshared=True)

    def _copy(self, content: Tensor, tier: Tier) -> Reservation:
        copied = self._tiers.allocate(len(content), tier)
        assert copied.content is not None
        copied.content.copy_(content)
        return copied
