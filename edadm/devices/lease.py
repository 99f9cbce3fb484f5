"""Leases: of the GPUs of a machine each process has its own, unless its user says how many share one.

A lease is a lock of the operating system on a file that belongs to the GPU, in a folder of the machine where
all its users may lock. It ends with its process, however that ends. Who wants a GPU for itself alone locks
its file exclusively. Those who share lock it together, and each one more file, of which there are as many as
may share; who can lock the GPU's file exclusively for a moment knows that nobody is there yet.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edadm.console import say
from edadm.devices.listed import VISIBLE, Gpu, refuse_several_kinds, visible_gpus
from edadm.errors import EdadmError

if TYPE_CHECKING:
    import torch

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FOLDER = Path(
    os.environ.get("EDADM_GPU_LOCKS") or "/tmp/edadm-gpus"
)  # users and jobs have TMPDIRs of their own
PAUSE = 0.5  # seconds between two looks at GPUs that are taken
_HELD = "EDADM_GPU"  # set beside CUDA_VISIBLE_DEVICES: children of a process compute on its GPU
_SHARE = "EDADM_GPU_SHARE"  # how many may be there, likewise
_WISH = re.compile(r"(auto|cuda(?::(\d+))?)(?:/([1-9]\d*))?")
_mine: list[int] = []  # descriptors, open for as long as the process lives


def held() -> str | None:
    """The GPU of this process, for people; None without a lease."""
    return os.environ.get(_HELD)


def sharers() -> int:
    """How many processes may be on the GPU of this one; 1 without a lease."""
    return int(os.environ.get(_SHARE) or 1)


def leased_device(name: str) -> torch.device:
    """The device of torch that a name means, after a lease of it where it is a GPU; the log says which.

    Args:
        name: see `lease`.

    Raises:
        EdadmError: as `lease` and `device_named`.
    """
    wanted = lease(name)

    from edadm.devices.named import device_named  # imports torch, whose memory nobody needs who waits

    where = device_named(wanted)
    if where.type == "cpu":
        _give_back()
    elif gpu := held():
        say(f"computing on {gpu}")
    return where


def lease(name: str, gpus: Sequence[Gpu] | None = None, folder: Path = FOLDER) -> str:
    """Torch's name for a device, once this process has the GPU that it means, and sees no other.

    What means no GPU that `nvidia-smi` lists is returned as it is, and so is a GPU where the system has no
    locks, or where this process uses CUDA already, which could not be shown less any more. A lease is for
    good: later calls mean the same GPU.

    Args:
        name: `cuda` is any free GPU, `cuda:1` the second one, `auto` as `cuda` if torch can use it. `/2`
            behind these lets two processes that say so share a GPU. All else is no business of leases.
        gpus: to choose from; those that the surroundings leave to this process if None.
        folder: of the locks.

    Raises:
        EdadmError: the GPUs are of several kinds, or the folder cannot be used.
    """
    wish = _WISH.fullmatch(name)
    if wish is None:
        return name
    wanted, number, share = wish[1], wish[2], int(wish[3] or 1)
    alone = "auto" if wanted == "auto" else "cuda"
    if held():
        return alone
    gpus = visible_gpus() if gpus is None else gpus
    if number is not None:
        gpus = gpus[int(number) :][:1]
    if not gpus or fcntl is None or _cuda_is_in_use():
        return wanted
    refuse_several_kinds(gpus)
    gpu = take(gpus, share, folder)
    os.environ[VISIBLE] = gpu.uuid
    os.environ.update({_HELD: str(gpu), _SHARE: str(share)})
    return alone


def _cuda_is_in_use() -> bool:
    imported: Any = sys.modules.get("torch")
    return imported is not None and imported.cuda.is_initialized()


def take(gpus: Sequence[Gpu], share: int = 1, folder: Path = FOLDER, pause: float = PAUSE) -> Gpu:
    """The first GPU that is free, which this process has from then on; waits for one, and says so once.

    Args:
        gpus: to choose from.
        share: processes of this user's wish that may have a GPU together; 1 is alone.
        folder: of the locks; made if absent.
        pause: seconds between two looks.

    Raises:
        EdadmError: the folder cannot be used.
    """
    _make(folder)
    told = False
    while True:
        for how, place in _ways(share):
            for gpu in gpus:
                if descriptors := _attempt(folder / gpu.uuid.replace("/", "_"), how, place):
                    _keep(descriptors)
                    return gpu
        if not told:
            taken = ", ".join(f"{gpu.place} (last by {_holder(folder, gpu)})" for gpu in gpus)
            say(f"waiting for a GPU; taken are {taken}")
            told = True
        time.sleep(pause)


def _ways(share: int) -> list[tuple[int, int | None]]:
    """How to attempt GPUs: alone; or for sharing, one that is empty before a place on one that is not."""
    if share == 1:
        return [(fcntl.LOCK_EX, None)]
    return [(fcntl.LOCK_EX, 0), *((fcntl.LOCK_SH, place) for place in range(share))]


def _attempt(path: Path, how: int, place: int | None) -> list[int]:
    """Locks a GPU alone, or one of the places on it; no descriptors if that is taken."""
    whole = _locked(path, how)
    if whole is None:
        return []
    shared = None if place is None else _locked(path.with_name(f"{path.name}.{place}"), fcntl.LOCK_EX)
    if place is not None and (shared is None or not _lock(whole, fcntl.LOCK_SH, path)):
        for descriptor in (whole, shared):
            if descriptor is not None:
                os.close(descriptor)
        return []
    with suppress(OSError):  # a note for people: the lock holds on a full disk, too
        os.ftruncate(whole, 0)
        os.pwrite(whole, f"process {os.getpid()}".encode(), 0)
    return [descriptor for descriptor in (whole, shared) if descriptor is not None]


def _locked(path: Path, how: int) -> int | None:
    """An open descriptor with a lock of its file; None if another process has one that excludes it."""
    descriptor = _opened(path)
    if _lock(descriptor, how, path):
        return descriptor
    os.close(descriptor)
    return None


def _lock(descriptor: int, how: int, path: Path) -> bool:
    """Locks a file, or changes its lock; False if another process has one that excludes it."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:  # a file system without locks
        os.close(descriptor)
        raise _unusable(path, error.strerror) from None
    return True


def _opened(path: Path) -> int:
    """The file of a lock, which every user may open; made if absent.

    Never with O_CREAT on one that is there: systems with `fs.protected_regular` refuse that to all but its
    owner, whatever its permissions.
    """
    safe = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        with _for_all():
            try:
                return os.open(path, safe)
            except FileNotFoundError:
                return os.open(path, safe | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return os.open(path, safe)  # another process was faster
    except OSError as error:
        raise _unusable(path, error.strerror) from None


def _make(folder: Path) -> None:
    """Makes the folder of the locks, which every user may write to and from which only owners remove."""
    try:
        with _for_all():
            folder.mkdir(mode=0o1777)
    except FileExistsError:
        if not stat.S_ISDIR(folder.lstat().st_mode):
            raise _unusable(folder, "no folder") from None
    except OSError as error:
        raise _unusable(folder, error.strerror) from None


def _unusable(path: Path, reason: str | None) -> EdadmError:
    return EdadmError(
        f"{path}, by which processes of this machine share its GPUs, cannot be used ({reason}); its owner "
        "can remove it, or name another folder, the same for all, as EDADM_GPU_LOCKS"
    )


@contextmanager
def _for_all() -> Iterator[None]:
    """Files made in this block have the permissions they were asked for, whatever the user's mask."""
    mask = os.umask(0)
    try:
        yield
    finally:
        os.umask(mask)


def _holder(folder: Path, gpu: Gpu) -> str:
    try:
        return (folder / gpu.uuid.replace("/", "_")).read_text().strip() or "another process"
    except OSError:
        return "another process"


def _keep(descriptors: list[int]) -> None:
    """Holds locks until the process ends; those it forks, which inherit them, let go at once."""
    _mine.extend(descriptors)
    os.register_at_fork(after_in_child=_let_go)


def _give_back() -> None:
    """Ends the lease of a process that cannot use the GPU after all."""
    if _mine:
        _let_go()
        del os.environ[_HELD], os.environ[_SHARE]


def _let_go() -> None:
    while _mine:
        os.close(_mine.pop())
