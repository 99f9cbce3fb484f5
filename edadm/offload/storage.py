"""Where bytes are while nobody computes with them: on the device, in host memory, or in files; and how many are where."""

from __future__ import annotations

import mmap
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from edadm.errors import EdadmError

Tier = Literal["device", "host", "disk"]
TIERS: tuple[Tier, ...] = ("device", "host", "disk")
GIB = 2**30
UNLIMITED = sys.maxsize


@dataclass(frozen=True)
class Limits:
    """How many bytes may be kept.

    Attributes:
        device: on the device, beside networks and the batch that is computed with.
        host: in host memory.
        scratch: folder for the files that take the rest; None forbids files.
    """

    device: int = UNLIMITED
    host: int = UNLIMITED
    scratch: Path | None = None

    def of(self, tier: Tier) -> int:
        """Bytes that a tier takes; the disk says itself when it is full."""
        if tier == "disk":
            return 0 if self.scratch is None else UNLIMITED
        return self.device if tier == "device" else self.host


@dataclass(eq=False)
class Reservation:
    """Counted bytes in one tier; `content`, (size,) uint8, is None for a reservation and for the storage of a paused pass itself."""

    tier: Tier
    size: int
    content: Tensor | None = None


@dataclass
class TieredStorage:
    """Counts and allocates what is kept.

    Attributes:
        device: where computing happens; it may be the CPU, whose memory then plays both parts.
        limits: never exceeded.
        used: bytes that are kept now, by tier.
        most: most that were kept at once.
    """

    device: torch.device
    limits: Limits
    used: dict[Tier, int] = field(default_factory=lambda: dict.fromkeys(TIERS, 0))
    most: dict[Tier, int] = field(default_factory=lambda: dict.fromkeys(TIERS, 0))
    _spare: list[Tensor] = field(
        default_factory=list
    )  # host pages that nobody uses, as far as the limit has room for them

    def room(self, tier: Tier) -> int:
        """Bytes that can still be kept."""
        return self.limits.of(tier) - self.used[tier]

    def count(self, size: int, tier: Tier) -> Reservation:
        """Counts bytes that are there already."""
        self.used[tier] += size
        self.most[tier] = max(self.most[tier], self.used[tier])
        return Reservation(tier, size)

    def allocate(self, size: int, tier: Tier, reserved: Reservation | None = None) -> Reservation:
        """New bytes, if a reservation is given out of it.

        Raises:
            EdadmError: the disk is full, or there is no folder for files.
        """
        if reserved is not None:
            drawn = min(size, reserved.size)
            self.used[tier] -= drawn
            reserved.size -= drawn
        block = self.count(size, tier)
        if tier == "disk":
            block.content = self._file(size)
        elif tier == "host":
            fitting = next((pages for pages in self._spare if len(pages) == size), None)
            if fitting is None:
                self._shed()
            else:
                self._spare = [pages for pages in self._spare if pages is not fitting]
            block.content = _pages(size) if fitting is None else fitting
        else:
            block.content = torch.empty(size, dtype=torch.uint8, device=self.device)
        return block

    def free(self, block: Reservation, unshared: bool = False) -> None:
        """Ends a block; whoever still holds its content holds memory that is not counted.

        Args:
            block: not used any more.
            unshared: nobody holds its content, so that the next block may have its pages: new ones cost more
                than what is copied there.
        """
        self.used[block.tier] -= block.size
        if unshared and block.tier == "host" and block.content is not None:
            self._spare.append(block.content)
            self._shed()
        block.size, block.content = 0, None

    def _shed(self) -> None:
        """Gives spare pages back to the system until used and spare ones are within the limit, those that lay longest first."""
        spare = sum(len(pages) for pages in self._spare)
        while self._spare and self.used["host"] + spare > self.limits.host:
            spare -= len(self._spare.pop(0))

    def _file(self, size: int) -> Tensor:
        """Bytes of a file that has no name any more: the system takes them back with the last reference, or with the process."""
        folder = self.limits.scratch
        if folder is None:
            raise EdadmError(
                f"{size / GIB:.3f} GiB are to be kept in a file, and no folder was given; name one, or raise the limits"
            )
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder)
        try:
            _reserve(handle, size)
            return torch.from_file(name, shared=True, size=size, dtype=torch.uint8)
        except OSError as error:
            raise EdadmError(
                f"{folder} takes no more than the {(self.used['disk'] - size) / GIB:.3f} GiB that are there ({error.strerror}); "
                "make room on that disk, or raise memory.device or memory.host"
            ) from None
        finally:
            os.close(handle)
            os.unlink(name)


def _pages(size: int) -> Tensor:
    """Host memory of its own pages. The allocator keeps freed memory for later, by which a process grows far beyond its limit."""
    if size == 0 or not hasattr(mmap, "MAP_PRIVATE"):
        return torch.empty(size, dtype=torch.uint8)
    return torch.frombuffer(
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), dtype=torch.uint8
    )


def _reserve(handle: int, size: int) -> None:
    """Makes a file so long; where the system can, its space is taken now: a sparse file kills its process when the disk is full."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
    else:
        os.ftruncate(handle, size)


def as_bytes(storage: torch.UntypedStorage) -> Tensor:
    """A storage as a tensor, (bytes,) uint8."""
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


class OffloadedStorage:
    """One storage of a paused pass: counted where it was made, or copied elsewhere and emptied until somebody wants it again.

    Attributes:
        block: where its bytes are.
        pauses: for how many pauses it has waited untouched.
    """

    def __init__(self, storage: torch.UntypedStorage, tiers: TieredStorage, tier: Tier):
        self._reference = StorageWeakRef(storage)
        self._tiers = tiers
        self.pauses = 0
        if tier == "device":
            self.reservation = tiers.count(storage.nbytes(), "device")
        else:
            self.reservation = self._copy(as_bytes(storage), tier)
            storage.resize_(0)

    @property
    def is_away(self) -> bool:
        """Whether the storage is empty."""
        return self.reservation.content is not None

    def move(self, tier: Tier) -> None:
        """Copies the bytes to another tier and gives back those that they had."""
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
        """Gives up the bytes that are kept."""
        self._tiers.free(self.reservation, unshared=True)

    def _copy(self, content: Tensor, tier: Tier) -> Reservation:
        block = self._tiers.allocate(len(content), tier)
        assert block.content is not None
        block.content.copy_(content)
        return block
