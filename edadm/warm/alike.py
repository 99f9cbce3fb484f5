"""When a fork of the server is what a new process would be."""

from __future__ import annotations

import hashlib
import os
import resource
import sys

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
OF_A_JOB = (  # variables that no library reads when it is imported; a fork has its job's
    *("PWD", "OLDPWD", "SHLVL", "_", "PS1"),  # the shell's
    *("TMPDIR", "TMP", "TEMP", "TEMPDIR"),
    *("CUDA_VISIBLE_DEVICES", "EDADM_DEVICE_MEMORY", "EDADM_HOST_MEMORY"),
)
_LIMITS = sorted(name for name in dir(resource) if name.startswith("RLIMIT_"))


def likeness() -> str:
    """A hash of all that a process has from its start and keeps: interpreter, environment, limits, code.

    Two processes of which it is equal would import the same, with the same effects.
    """
    mask = os.umask(0)
    os.umask(mask)
    own = {name: value for name, value in os.environ.items() if name not in OF_A_JOB}
    places = [place for place in sys.path if os.path.basename(place) == "site-packages"]
    found = (
        *(sys.version, sys.prefix, tuple(sys.flags), sys.path, sorted(own.items())),
        *(mask, [resource.getrlimit(getattr(resource, name)) for name in _LIMITS]),
        *(sorted(os.sched_getaffinity(0)), os.getuid(), os.getgid()),
        [os.stat(place).st_mtime_ns for place in places if os.path.isdir(place)],
        _stamps(PACKAGE),
    )
    return hashlib.sha256(repr(found).encode(errors="surrogateescape")).hexdigest()


def _stamps(folder: str) -> list[tuple[str, int, int]]:
    """Names, sizes and times of all files of the package."""
    found = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.is_dir():
            found += _stamps(entry.path) if entry.name != "__pycache__" else []
        elif os.path.exists(entry.path):  # no link to nothing
            known = entry.stat()
            found.append((entry.path, known.st_size, known.st_mtime_ns))
    return found
