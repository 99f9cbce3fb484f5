"""Leases of GPUs that are only names, taken by real processes."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from edadm.config.fingerprint import PACKAGE
from edadm.devices import lease as module
from edadm.devices.lease import lease, leased_device, take
from edadm.devices.listed import Gpu
from edadm.errors import EdadmError

pytestmark = pytest.mark.skipif(module.fcntl is None, reason="leases need flock")

GPUS = [Gpu(f"GPU {index}", "H200", f"GPU-{index}{index}") for index in range(4)]
# A job: takes a GPU, notes which, and has it until its input ends.
JOB = """
import os, sys
from pathlib import Path
from edadm.devices.lease import take
from edadm.devices.listed import Gpu
folder, note, count, share, user = sys.argv[1:]
os.umask(0o077)
os.setuid(int(user))
gpus = [Gpu(f"GPU {index}", "H200", f"GPU-{index}{index}") for index in range(int(count))]
Path(note).write_text(take(gpus, int(share), Path(folder), pause=0.01).uuid)
sys.stdin.read()
"""


class Jobs:
    """Processes that take GPUs, whose notes lie in a folder."""

    def __init__(self, folder: Path):
        self.folder, self.locks = folder, folder / "locks"
        self.started: list[subprocess.Popen] = []

    def start(self, count: int, share: int = 1, user: int | None = None) -> int:
        """Starts one of those that choose among so many GPUs; returns its number."""
        user = os.getuid() if user is None else user
        self.started.append(
            subprocess.Popen(
                [sys.executable, "-c", JOB]
                + [str(value) for value in (self.locks, self._note(len(self.started)), count, share, user)],
                env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return len(self.started) - 1

    def _note(self, job: int) -> Path:
        return self.folder / f"{job}.note"

    def now(self, job: int) -> str:
        """The GPU that a job has or had; nothing so far if it waits."""
        return self._note(job).read_text() if self._note(job).exists() else ""

    def gpu(self, *jobs: int) -> str:
        """The GPU of the first of these jobs to have one."""
        end = time.monotonic() + 60
        while not (found := next(filter(None, map(self.now, jobs)), "")):
            assert time.monotonic() < end
            assert all(self.started[job].poll() is None for job in jobs), "a job ended without a GPU"
            time.sleep(0.01)
        return found

    def assert_waits(self, job: int) -> None:
        """Returns when a job says that it waits."""
        stderr = self.started[job].stderr
        assert stderr is not None
        assert stderr.readline().startswith("waiting for a GPU; taken are GPU 0 (last by process ")

    def end(self, job: int) -> str:
        """What a job that may end said since it was heard last."""
        said = self.started[job].communicate(timeout=60)[1]
        assert self.started[job].returncode == 0, said
        return said


@pytest.fixture
def jobs() -> Iterator[Jobs]:
    """Jobs of which none outlives the test, in a folder where every user may write."""
    with TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        found = Jobs(Path(folder))
        yield found
        for process in found.started:
            process.kill()
            process.communicate()


@pytest.mark.parametrize(("count", "share"), [(4, 1), (2, 2)])
def test_no_more_jobs_are_on_a_gpu_than_may_be(count: int, share: int, jobs: Jobs) -> None:
    """Eight jobs for four places: half have one, half say once that they wait, and follow one by one."""
    first = [jobs.start(count, share) for _ in range(4)]
    had = [jobs.gpu(job) for job in first]
    assert sorted(had) == sorted([gpu.uuid for gpu in GPUS[:count]] * share)
    others = [jobs.start(count, share) for _ in range(4)]
    for job in others:
        jobs.assert_waits(job)
    for job, free in zip(first, had, strict=True):
        assert jobs.end(job) == ""
        assert jobs.gpu(*others) == free
        others.remove(next(other for other in others if jobs.now(other)))
    assert not others


def test_a_killed_job_gives_its_gpu_back(jobs: Jobs) -> None:
    holding = []
    for expected in ("GPU-00", "GPU-11"):  # the first that is free
        holding.append(jobs.start(2))
        assert jobs.gpu(holding[-1]) == expected
    waiting = jobs.start(2)
    jobs.assert_waits(waiting)
    jobs.started[holding[0]].kill()
    assert jobs.gpu(waiting) == "GPU-00"


def test_who_wants_a_gpu_alone_waits_for_those_who_share_it(jobs: Jobs) -> None:
    sharing = [jobs.start(1, 2), jobs.start(1, 2)]
    assert [jobs.gpu(job) for job in sharing] == ["GPU-00"] * 2
    alone = jobs.start(1)
    jobs.assert_waits(alone)
    jobs.end(sharing[0])
    time.sleep(0.1)
    assert jobs.now(alone) == ""
    jobs.end(sharing[1])
    assert jobs.gpu(alone) == "GPU-00"


def test_who_shares_takes_a_gpu_that_became_empty_before_a_free_place_beside_another_job(jobs: Jobs) -> None:
    """The first places of both are free, and one of the jobs on the first GPU has the second place there."""
    places = [jobs.start(2, 2)]
    for expected in ("GPU-11", "GPU-00"):
        assert jobs.gpu(places[-1])
        places.append(jobs.start(2, 2))
        assert jobs.gpu(places[-1]) == expected
    for job in places[:2]:
        jobs.end(job)
    assert [jobs.gpu(jobs.start(2, 2)) for _ in range(2)] == ["GPU-11", "GPU-00"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start processes of other users")
def test_two_users_of_a_machine_take_no_gpu_from_each_other(jobs: Jobs) -> None:
    one = jobs.start(2, user=65534)
    assert jobs.gpu(one) == "GPU-00"
    assert jobs.gpu(jobs.start(2, user=12345)) == "GPU-11"
    waiting = jobs.start(2, user=12345)
    jobs.assert_waits(waiting)
    jobs.started[one].kill()
    assert jobs.gpu(waiting) == "GPU-00"
    assert stat.S_IMODE(jobs.locks.stat().st_mode) == 0o1777
    assert {stat.S_IMODE(file.stat().st_mode) for file in jobs.locks.iterdir()} == {0o666}


@contextmanager
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process without a lease, and afterwards as before."""
    monkeypatch.setattr(module, "_mine", mine := [])
    for name in ("CUDA_VISIBLE_DEVICES", "EDADM_GPU", "EDADM_GPU_SHARE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    yield
    for descriptor in mine:
        os.close(descriptor)
    mine.clear()


@pytest.fixture(autouse=True)
def _no_lease(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with fresh(monkeypatch):
        yield


@pytest.mark.parametrize(
    ("name", "uuid"),
    [
        ("cuda", "GPU-00"),
        ("auto", "GPU-00"),
        ("cuda:2", "GPU-22"),
        ("cuda/3", "GPU-00"),
        ("cuda:1/2", "GPU-11"),
    ],
)
def test_a_process_sees_the_gpu_that_it_has(name: str, uuid: str, tmp_path: Path) -> None:
    assert lease(name, GPUS, tmp_path / "locks") == ("auto" if name == "auto" else "cuda")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == uuid
    assert module.held() == f"GPU {uuid[-1]} (H200, {uuid})"
    assert module.sharers() == int(name.partition("/")[2] or 1)
    assert lease("cuda", GPUS, tmp_path / "locks") == "cuda"  # for good
    assert os.environ["CUDA_VISIBLE_DEVICES"] == uuid


def test_a_log_says_which_gpu_a_job_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "visible_gpus", lambda: GPUS)
    monkeypatch.setattr(lease, "__defaults__", (None, tmp_path / "locks"))
    monkeypatch.setattr("edadm.devices.named.device_named", torch.device)
    assert leased_device("cuda:2") == torch.device("cuda")
    assert capsys.readouterr().err == "computing on GPU 2 (H200, GPU-22)\n"


def test_who_cannot_use_a_gpu_gives_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A torch without CUDA on a machine with GPUs, say: `auto` means the CPU."""
    monkeypatch.setattr(module, "visible_gpus", lambda: GPUS[:1])
    monkeypatch.setattr(lease, "__defaults__", (None, tmp_path / "locks"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert leased_device("auto") == torch.device("cpu")
    assert capsys.readouterr().err == ""
    assert module.held() is None
    assert take(GPUS[:1], folder=tmp_path / "locks") == GPUS[0]  # without waiting


@pytest.mark.parametrize(
    ("name", "gpus", "left"),
    [
        ("cpu", GPUS, "cpu"),
        ("mps", GPUS, "mps"),
        ("cuda:x", GPUS, "cuda:x"),
        ("cuda/0", GPUS, "cuda/0"),
        ("cuda:4", GPUS, "cuda:4"),
        ("cuda/2", [], "cuda"),
        ("auto/2", [], "auto"),
    ],
)
def test_what_means_no_gpu_that_is_listed_is_left_to_torch(
    name: str, gpus: list[Gpu], left: str, tmp_path: Path
) -> None:
    assert lease(name, gpus, tmp_path / "locks") == left
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert not (tmp_path / "locks").exists()


def test_who_uses_cuda_already_keeps_what_it_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    assert lease("cuda:1", GPUS, tmp_path / "locks") == "cuda:1"
    assert module.held() is None


def test_a_child_computes_on_the_gpu_of_its_parent(tmp_path: Path) -> None:
    lease("cuda", GPUS, tmp_path / "locks")
    program = "import os; from edadm.devices.lease import lease; print(lease('cuda'), os.environ['CUDA_VISIBLE_DEVICES'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("cuda GPU-00\n", "")


def test_gpus_of_several_kinds_are_not_mixed(tmp_path: Path) -> None:
    mixed = [*GPUS, Gpu("GPU 4", "T400", "GPU-44")]
    with pytest.raises(EdadmError, match=r"several kinds \(H200, T400\)"):
        lease("auto", mixed, tmp_path / "locks")
    assert lease("cuda:4", mixed, tmp_path / "locks") == "cuda"


def test_a_forked_child_keeps_nothing(tmp_path: Path) -> None:
    """Or a loader's worker would hold the GPU of a process that was killed."""
    take(GPUS[:1], folder=tmp_path / "locks")
    kept = list(module._mine)
    assert list(map(is_open, kept)) == [True]
    child = os.fork()
    if child == 0:
        os._exit(len(module._mine) + 10 * sum(map(is_open, kept)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (module._mine, list(map(is_open, kept))) == (kept, [True])


def is_open(descriptor: int) -> bool:
    """Whether this process has a file under this number."""
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("wrong", ["file", "link", "closed"])
def test_a_folder_that_cannot_be_used_is_named(wrong: str, tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    if wrong == "file":
        folder.touch()
    elif wrong == "link":
        folder.symlink_to(tmp_path)
    else:
        folder.mkdir()
        (folder / "GPU-00").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(
        EdadmError, match=f"^{re.escape(str(folder))}.*cannot be used .*can remove it.* EDADM_GPU_LOCKS$"
    ):
        take(GPUS, folder=folder)
    assert not (tmp_path / "elsewhere").exists()
