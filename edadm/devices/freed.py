"""What becomes of memory that this process has freed."""

from __future__ import annotations

import ctypes

LARGEST, KEPT = 2**25, 2**28  # bytes: of an allocation that is reused when freed, and kept for reuse at most
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's `mallopt`


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
