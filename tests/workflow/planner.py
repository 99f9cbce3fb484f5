"""Dry runs as forks of a process that has imported Snakemake, for which each would need 1.4 s of a processor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

_SERVER = """
import json, os, sys, traceback
from snakemake.cli import main

kept = list(sys.path[1:])
for line in sys.stdin:
    asked = json.loads(line)
    child = os.fork()
    if not child:
        status = 1
        try:
            os.chdir(asked["folder"])
            os.environ.clear()
            os.environ.update(asked["environment"])
            sys.path[:] = [asked["folder"], *filter(None, os.environ.get("PYTHONPATH", "").split(":")), *kept]
            sys.argv = ["snakemake", *asked["options"]]
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            for at, name in ((0, os.devnull), (1, asked["said"]), (2, asked["said"] + ".err")):
                os.dup2(os.open(name, flags if at else os.O_RDONLY), at)
            main(asked["options"])
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@cache
def _server() -> subprocess.Popen[str]:
    """The process, which ends when this one does, since its input ends then."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", _SERVER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, env=environment, text=True, **pipes)


def dry_run(options: Sequence[str], folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """What `python -m snakemake` would say, and its exit status; it must be told to start nothing."""
    assert {"-n", "--dry-run"} & set(options)
    server = _server()
    assert server.stdin
    assert server.stdout
    with tempfile.TemporaryDirectory() as scratch:
        said = Path(scratch) / "said"
        asked = {
            "options": [*options],
            "folder": str(folder),
            "environment": {**environment},
            "said": str(said),
        }
        server.stdin.write(json.dumps(asked) + "\n")
        server.stdin.flush()
        status = server.stdout.readline()
        assert status, "the process that plans has ended"
        return int(status), said.read_text() + Path(f"{said}.err").read_text()
