"""Freed memory is given to the next tensor."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edadm.devices import freed

COUNT = """
import ctypes, mmap, resource, sys
from edadm.devices.freed import reuse_freed_memory
if sys.argv[1] == "reused":
    reuse_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
for round in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [libc.malloc(int(sys.argv[2])) for _ in range(8)]
    for block in blocks:
        ctypes.memset(block, 1, int(sys.argv[2]))
    for block in reversed(blocks):
        libc.free(block)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * mmap.PAGESIZE)
"""


def pages_of_the_third_round(how: str, size: int) -> int:
    """Bytes of pages that the system clears when as much is allocated and freed for the third time."""
    command = [sys.executable, "-c", COUNT, how, str(size)]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(found.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_tensors_of_some_mebibytes_get_pages_that_were_freed() -> None:
    size = 12 * 2**20
    assert pages_of_the_third_round("reused", size) < size
    assert pages_of_the_third_round("as it comes", size) >= 4 * size  # else this tests nothing


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_what_is_larger_goes_back_to_the_system() -> None:
    size = 2 * freed.LARGEST
    assert pages_of_the_third_round("reused", size) >= 8 * size


def test_another_system_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Library:
        """One that knows no `mallopt`."""

        def __getattr__(self, name: str) -> None:
            asked.append(name)
            raise AttributeError(name)

    monkeypatch.setattr(freed.ctypes, "CDLL", lambda name: Library())
    freed.reuse_freed_memory()
    assert asked == ["mallopt"]


@pytest.mark.parametrize(
    ("offered", "before", "after"),
    [
        ("always [madvise] never", None, "1"),
        ("[always] madvise never", None, "1"),
        ("always madvise [never]", None, None),
        (None, None, None),
        ("always [madvise] never", "0", "0"),
    ],
)
def test_huge_pages_are_asked_for_where_there_are_any_and_nobody_said_otherwise(
    offered: str | None,
    before: str | None,
    after: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(freed.HUGE, before or "")
    if before is None:
        monkeypatch.delenv(freed.HUGE)
    if offered is not None:
        (tmp_path / "enabled").write_text(offered + "\n")
    freed.use_huge_pages(tmp_path / "enabled")
    assert os.environ.get(freed.HUGE) == after
