"""What pages this process's tensors lie in, and what becomes of those that it has freed."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

LARGEST, KEPT = 2**25, 2**28  # bytes: of an allocation that is reused when freed, and kept for reuse at most
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's `mallopt`
HUGE = "THP_MEM_ALLOC_ENABLE"  # which PyTorch reads at its first tensor
_OFFERED = Path("/sys/kernel/mm/transparent_hugepage/enabled")  # such as `always [madvise] never`


def use_huge_pages(offered: Path = _OFFERED) -> None:
    """Has PyTorch ask for huge pages for tensors of 2 MiB and more, where Linux gives them to who asks.

    To be called before PyTorch is imported. A processor finds addresses in few large pages faster than in
    many small ones. Who has set PyTorch's variable is left to it.

    Args:
        offered: where Linux says who is given huge pages.
    """
    with suppress(OSError):
        if "[never]" not in offered.read_text():
            os.environ.setdefault(HUGE, "1")


def reuse_freed_memory() -> None:
    """Lets glibc give freed memory to the next tensor, for the rest of the process.

    By itself it hands tensors of a few MiB back to the system, which clears the pages of every new one: a
    tenth to a fifth of the processor's time in networks of this size. For processes of our own, not for
    libraries; other systems are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, LARGEST)
        mallopt(_TRIM_THRESHOLD, KEPT)
