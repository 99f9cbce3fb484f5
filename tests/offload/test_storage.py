"""Bytes in each memory tier."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edadm.errors import EdadmError
from edadm.offload.cache import Memory
from edadm.offload.limits import Limits
from edadm.offload.storage import TieredStorage

CPU = torch.device("cpu")


def test_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    memory = Memory(CPU, Limits(device=0, host=0, scratch=tmp_path))
    with pytest.raises(EdadmError, match=r"takes no more than the 0\.000 GiB that are there"):
        memory.storage.allocate(1 << 60, "disk")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    memory = Memory(CPU, Limits(device=0, host=0, scratch=tmp_path / "file/scratch"))
    with pytest.raises(
        EdadmError, match="scratch cannot be written, since a file lies where a folder belongs"
    ):
        memory.storage.allocate(8, "disk")
    with pytest.raises(EdadmError, match="no folder was given"):
        Memory(CPU, Limits(device=0, host=0)).keep(torch.ones(1).untyped_storage())


def test_pages_of_ended_blocks_are_used_again_within_the_limit() -> None:
    tiers = TieredStorage(CPU, Limits(host=100))
    first, second = tiers.allocate(40, "host"), tiers.allocate(40, "host")
    tiers.free(first, unshared=True)
    assert len(tiers._spare) == 1
    other = tiers.allocate(50, "host")  # with it, 90 of 100 are used: no room for spare ones
    assert tiers._spare == []
    tiers.free(other)
    assert tiers._spare == []  # its content may be in somebody's hands
    assert second.content is not None
    pages = second.content.data_ptr()
    tiers.free(second, unshared=True)
    third = tiers.allocate(40, "host")
    assert third.content is not None
    assert third.content.data_ptr() == pages
    assert tiers._spare == []
    assert tiers.used["host"] == 40


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="resident memory is read from /proc")
def test_host_memory_that_is_freed_leaves_the_process() -> None:
    def resident() -> int:
        return (
            int(
                next(
                    line
                    for line in Path("/proc/self/status").read_text().splitlines()
                    if line.startswith("RssAnon")
                ).split()[1]
            )
            * 1024
        )

    size, tiers = 21 * 2**20, TieredStorage(CPU, Limits())
    tiers.free(
        tiers.allocate(size, "host")
    )  # from now on the allocator would keep blocks of this size for later
    before, blocks, between = resident(), [], []
    for _ in range(20):
        blocks.append(tiers.allocate(size, "host"))
        blocks[-1].content.fill_(1)
        between.append(torch.ones(1000))
    assert resident() - before > 19 * size
    for block in blocks:
        tiers.free(block)
    assert resident() - before < 2 * size
