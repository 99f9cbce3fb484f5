"""What the system says is free."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edadm.offload.free_memory import free_gpu_bytes, free_host_bytes, own_gpu_bytes
from edadm.offload.limits import GIB


def a_system(root: Path, groups: str, files: dict[str, str]) -> Path:
    """Files that tell of 8 GiB that the system can spare, and of control groups."""
    for name, text in {
        "proc/meminfo": "MemTotal: 9\nMemAvailable: 8388608 kB\n",
        "proc/self/cgroup": groups,
        **files,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_free_host_memory_is_what_the_system_can_spare_and_the_control_groups_allow(tmp_path: Path) -> None:
    assert free_host_bytes(a_system(tmp_path / "plain", "0::/\n", {})) == 8 * GIB
    stat = {"sys/fs/cgroup/job/memory.stat": "anon 5\ninactive_file 1073741824\n"}
    allowed = {
        "sys/fs/cgroup/job/memory.max": f"{4 * GIB}\n",
        "sys/fs/cgroup/job/memory.current": f"{2 * GIB}\n",
    }
    assert free_host_bytes(a_system(tmp_path / "two", "0::/job/step\n", {**allowed, **stat})) == 3 * GIB
    allowed["sys/fs/cgroup/job/memory.max"] = "max\n"
    assert free_host_bytes(a_system(tmp_path / "max", "0::/job/step\n", {**allowed, **stat})) == 8 * GIB
    one = {
        "sys/fs/cgroup/memory/job/memory.limit_in_bytes": f"{GIB}\n",
        "sys/fs/cgroup/memory/job/memory.usage_in_bytes": f"{2 * GIB}\n",
        "sys/fs/cgroup/memory/job/memory.stat": "total_inactive_file 0\n",
    }
    assert free_host_bytes(a_system(tmp_path / "one", "4:memory:/job\n0::/\n", one)) == 0
    assert free_host_bytes() > 0


def test_free_memory_of_a_gpu_is_the_drivers_and_what_this_process_holds_unused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in (("mem_get_info", (100, GIB)), ("memory_reserved", 12), ("memory_allocated", 7)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert free_gpu_bytes(torch.device("cuda:0")) == 105


@pytest.mark.parametrize(
    ("sharers", "driver", "left"), [(1, 900, 905), (2, 900, 493), (3, 150, 155), (1000, 900, 0)]
)
def test_of_a_gpu_that_is_shared_a_process_plans_with_its_part(
    sharers: int, driver: int, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part of 1,000 bytes less the 7 in use, or what others left of them."""
    monkeypatch.setenv("EDADM_GPU_SHARE", str(sharers))
    for name, value in (("mem_get_info", (driver, 1000)), ("memory_reserved", 12), ("memory_allocated", 7)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert own_gpu_bytes(torch.device("cuda:0")) == left
