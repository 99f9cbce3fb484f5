"""Where a server is started, and where none is asked."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from snakemake import benchmark

from edadm.warm import SETTING, SOCKET, client, starting

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has servers")


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SOCKET, raising=False)
    monkeypatch.setattr(benchmark, "BenchmarkTimer", benchmark.BenchmarkTimer)
    monkeypatch.setattr(starting, "_servers", [])


@pytest.mark.parametrize("reason", ["setting", "measures"])
def test_none_is_started_where_it_is_not_wanted_or_could_not_be_measured(
    reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason == "setting":
        monkeypatch.setenv(SETTING, "0")
    else:
        monkeypatch.delattr(benchmark, "BenchmarkTimer")
    starting.start()
    assert SOCKET not in os.environ
    assert starting._servers == []


def test_a_folder_is_private_and_its_name_short_enough_for_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("long" * 30)
    deep.mkdir()
    monkeypatch.setattr(starting.tempfile, "tempdir", str(deep))
    folder = starting._private_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(os.fsencode(folder / "socket")) < 108
    assert list(deep.iterdir()) == []
    folder.rmdir()


def test_a_benchmark_counts_the_fork_of_a_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SOCKET, str(tmp_path / "socket"))
    assert starting.count_forks()
    before = {each.pid for each in psutil.Process().children(recursive=True)}  # of other tests
    waiting = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    job, fork = (subprocess.Popen(waiting, stdin=subprocess.PIPE) for _ in range(2))
    try:
        timer = benchmark.BenchmarkTimer(os.getpid(), benchmark.BenchmarkRecord())
        (tmp_path / str(job.pid)).symlink_to(str(fork.pid))
        found = [each.pid for each in timer.main.children(recursive=True) if each.pid not in before]
        assert sorted(found) == sorted([job.pid, fork.pid, fork.pid])  # here it is a child, too
        (tmp_path / str(job.pid)).unlink()
        assert psutil.Process(fork.pid) not in starting.forks_of(job.pid)
    finally:
        for process in (job, fork):
            process.communicate()


def test_the_server_of_another_user_is_told_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(place)
        listener.listen()
        monkeypatch.setenv(SOCKET, place)
        monkeypatch.setattr(client, "peer", lambda connection: (1, os.geteuid() + 1, 0))
        assert client.served() is False
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(1) == b""
