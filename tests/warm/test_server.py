"""A fork does what a process of its own would do, and begins and ends with its client."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edadm.warm import server as module
from edadm.warm.client import LENGTH

from ..workflow.toy import copy_package
from .serving import Serving, serving, state, until

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has servers")
WAITING = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)"
OF_SERVER = "import os; print(os.getppid())"


@pytest.fixture(scope="module")
def server() -> Iterator[Serving]:
    with serving() as found:
        yield found


def line(client: subprocess.Popen[str]) -> str:
    assert client.stdout
    return client.stdout.readline().strip()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("pass", 0),
        ("raise SystemExit(3)", 3),
        ("raise SystemExit('a sentence')", 1),
        ("import os; os._exit(200)", 200),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import os; os.kill(os.getpid(), 11)", -signal.SIGSEGV),
        ("import os; os.kill(os.getpid(), 15)", -signal.SIGTERM),
    ],
)
def test_a_client_ends_as_its_fork(code: str, status: int, server: Serving) -> None:
    assert server.run(code) == (status, "", "a sentence\n" if "sentence" in code else "")


def test_a_traceback_is_told_as_ever(server: Serving) -> None:
    status, said, complained = server.run("raise ValueError('a reason')")
    assert (status, said) == (1, "")
    assert complained.startswith("Traceback (most recent call last):\n")
    assert complained.endswith("ValueError: a reason\n")


def test_streams_are_the_clients_in_order_and_are_written_out_at_the_end(server: Serving) -> None:
    code = (
        "import atexit, sys\natexit.register(print, 'at exit')\n"
        "for number in range(3):\n print('out', number, flush=True); print('err', number, file=sys.stderr)\n"
        "print(sys.stdin.read(), sys.stdout.line_buffering, sys.stderr.isatty())"
    )
    client = server.client(code, stdin=subprocess.PIPE, stderr=subprocess.STDOUT)
    said, _ = client.communicate("what was asked")
    lines = [f"{stream} {number}" for number in range(3) for stream in ("out", "err")]
    assert said.splitlines() == [*lines, "what was asked False False", "at exit"]


def test_folder_variables_and_argv_are_the_clients(server: Serving, tmp_path: Path) -> None:
    code = (
        "import json, os, sys, tempfile\n"
        "print(json.dumps([os.getcwd(), sys.argv[0], tempfile.gettempdir(), os.environ['CUDA_VISIBLE_DEVICES'], os.getppid()]))"
    )
    own = {"TMPDIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": "GPU-1"}
    status, said, complained = server.run(code, own, cwd=tmp_path)
    assert status == 0, complained
    assert json.loads(said) == [str(tmp_path), "-c", str(tmp_path), "GPU-1", server.process]


def test_signals_are_handled_as_by_a_process_of_its_own(server: Serving) -> None:
    code = (
        "import signal\nprint([signal.getsignal(getattr(signal, name)) for name in ('SIGTERM', 'SIGHUP', 'SIGCHLD', 'SIGINT')],"
        "signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.set_wakeup_fd(-1))"
    )
    alone = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status, said, complained = server.run(code)
    assert status == 0, complained
    assert said.split(" at ")[0] == alone.stdout.split(" at ")[0]
    assert said.rsplit(">", 1)[-1] == alone.stdout.rsplit(">", 1)[-1]


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP), (signal.SIGINT, 130)],
)
def test_a_signal_goes_to_the_fork_once(number: signal.Signals, status: int, server: Serving) -> None:
    caught = "\nexcept KeyboardInterrupt:\n print('once', flush=True); time.sleep(0.2); raise SystemExit(130)"
    client = server.client("import os, time\ntry:\n print(os.getpid(), flush=True); time.sleep(60)" + caught)
    fork = int(line(client))
    client.send_signal(number)
    said, _ = client.communicate()
    assert client.returncode == status
    assert said == ("once\n" if number == signal.SIGINT else "")
    assert state(fork) == "Z"


def test_a_fork_stops_and_goes_on_with_its_client(server: Serving) -> None:
    client = server.client(WAITING)
    fork = int(line(client))
    os.kill(server.process, signal.SIGTSTP)  # a terminal tells all
    client.send_signal(signal.SIGTSTP)
    until(lambda: state(fork) == state(client.pid) == "T")
    client.send_signal(signal.SIGCONT)
    until(lambda: state(fork) == "S")
    assert client.poll() is None
    client.kill()
    assert client.communicate()[0] == ""  # neither began again, nor was it at its end


def test_a_fork_ends_with_a_killed_client(server: Serving) -> None:
    client = server.client(WAITING)
    fork = int(line(client))
    link = Path(server.socket).with_name(str(client.pid))
    assert os.readlink(link) == str(fork)
    client.kill()
    assert client.stdout
    assert client.stdout.read() == ""  # nobody holds the pipe any more
    until(lambda: state(fork) == "Z")
    client.communicate()
    until(lambda: not link.is_symlink())


def test_nothing_stays_open(server: Serving) -> None:
    def of_server() -> list[str]:
        return sorted(os.listdir(f"/proc/{server.process}/fd"))

    code = "import os; print(sorted(os.listdir('/proc/self/fd')))"
    server.run(code)
    before = of_server()
    for _ in range(3):
        assert server.run(code)[1] == "['0', '1', '2', '3']\n"  # and the folder that is listed
    until(lambda: set(of_server()) <= set(before))  # what the first job had may have been open still
    assert set(os.listdir(Path(server.socket).parent)) == {"socket"}


def test_who_says_nothing_or_nonsense_does_no_harm(server: Serving) -> None:
    for said in (b"", b"\0", LENGTH.pack(2) + b"[]", LENGTH.pack(1) + b"x", LENGTH.pack(9) + b"{"):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(server.socket)
            connection.sendall(said)
    assert server.run(OF_SERVER)[1] == f"{server.process}\n"


def test_forks_draw_other_numbers() -> None:
    with serving(prelude="import numpy.random, random") as server:
        drawn = [
            server.run("import numpy, random; print(numpy.random.rand(), random.random())")[1]
            for _ in range(2)
        ]
    one, other = (each.split() for each in drawn)
    assert len({*one, *other}) == 4


@pytest.mark.parametrize("own", [{"OMP_NUM_THREADS": "2"}, {"EDADM_GPU_LOCKS": "elsewhere"}])
def test_who_lives_in_other_surroundings_starts_by_itself(own: dict[str, str], server: Serving) -> None:
    assert server.run(OF_SERVER, own)[1] == "by itself\n"
    limited = server.client(OF_SERVER, preexec_fn=lambda: os.umask(0o077))
    assert limited.communicate()[0] == "by itself\n"
    assert server.run(OF_SERVER)[1] == f"{server.process}\n"


def test_changed_code_is_imported_anew(tmp_path: Path) -> None:
    with serving(package=str(copy_package(tmp_path))) as server:
        assert server.run(OF_SERVER)[1] == f"{server.process}\n"
        with open(tmp_path / "edadm" / "quant" / "rounding.py", "a") as file:
            file.write("\n")
        assert server.run(OF_SERVER)[1] == "by itself\n"


def test_a_server_with_a_second_thread_forks_no_more() -> None:
    with serving(
        prelude="import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()"
    ) as server:
        assert server.run(OF_SERVER)[1] == "by itself\n"


@pytest.mark.parametrize("is_bad", [False, True])
def test_a_server_that_has_asked_for_gpus_forks_no_more(is_bad: bool) -> None:
    cuda = f"types.SimpleNamespace(_is_in_bad_fork=lambda: {is_bad}, is_available=None)"
    torch = f"sys.modules['torch'] = types.SimpleNamespace(cuda={cuda})"
    with serving(prelude=f"server.DRIVER = '/dev/null'\n{torch}") as server:
        assert server.run(OF_SERVER)[1] == ("by itself\n" if is_bad else f"{server.process}\n")


@pytest.mark.parametrize(("driver", "built"), [(True, True), (True, False), (False, True)])
def test_what_is_imported_asks_no_driver(
    driver: bool, built: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """torch keeps a thread of the driver that it has asked, and says what it would say."""
    asked: list[None] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: asked.append(None))
    monkeypatch.setattr(torch.cuda, "_is_compiled", lambda: built)
    monkeypatch.setattr(module, "DRIVER", str(tmp_path if driver else tmp_path / "none"))
    with module.asking_no_gpu():
        assert torch.cuda.is_available() is (driver and built)
    assert not asked
    torch.cuda.is_available()
    assert asked == [None]


def test_two_runs_have_servers_of_their_own(server: Serving) -> None:
    with serving() as other:
        clients = [each.client(OF_SERVER) for each in (server, other, server, other)]
        said = [client.communicate()[0].strip() for client in clients]
    assert said == [str(server.process), str(other.process)] * 2
    assert server.run(OF_SERVER)[1] == f"{server.process}\n"


def test_where_a_server_is_killed_jobs_begin_again_by_themselves() -> None:
    with serving() as server:
        client = server.client(WAITING)
        fork = int(line(client))
        os.kill(server.process, signal.SIGKILL)
        assert client.communicate()[0] == "by itself\n"
        assert client.returncode == 0
        until(lambda: state(fork) == "Z")
        assert server.run(OF_SERVER)[:2] == (0, "by itself\n")


def test_a_server_outlives_snakemake_until_its_last_fork_has_ended() -> None:
    with serving() as server:
        client = server.client(
            "import os, sys\nprint(os.getpid(), flush=True)\nsys.stdin.readline()\nraise SystemExit(7)",
            stdin=subprocess.PIPE,
        )
        line(client)
        server.snakemake.kill()
        server.snakemake.wait()
        assert until(lambda: server.run(OF_SERVER)[1] == "by itself\n")
        assert state(server.process) != "Z"
        client.communicate("go on\n")
        assert client.returncode == 7
        until(lambda: state(server.process) == "Z")
    assert not Path(server.socket).parent.exists()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device on this machine")
def test_forks_of_all_imports_compute_on_a_gpu() -> None:
    """What no other test does: the server has imported all that jobs need, and two forks use CUDA at once."""
    code = (
        "import os, sys, torch\n"
        "from edadm.devices.named import device_named\n"
        "a = torch.arange(4096.0, device=device_named('cuda')).view(64, 64)\n"
        "print(os.getppid(), 'triton' in sys.modules, (a @ a).cpu().double().sum().item())"
    )
    with serving(prelude="import importlib; importlib.reload(server)") as server:
        clients = [server.client(code) for _ in range(2)]
        said = [client.communicate()[0].split() for client in clients]
        assert [client.returncode for client in clients] == [0, 0]
    a = torch.arange(4096.0, device="cuda").view(64, 64)
    assert [(int(process), float(total)) for process, _, total in said] == [
        (server.process, (a @ a).cpu().double().sum().item())
    ] * 2
