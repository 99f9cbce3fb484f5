"""Files that are whole or absent, on the disk and not only in its cache."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edadm.artifacts.failures import placing

NO_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}
NO_SYNC |= {errno.EACCES, errno.EPERM, errno.EISDIR}
_PARTIAL = re.compile(r"\.[0-9a-f]{8}-\d+-[0-9a-f]{8}\.partial$")  # the end of a partial file's name
_LONGEST = 180  # of the artifact's own name within the name of its partial file; file systems allow 255 bytes


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A path to write to, renamed to `path` when the block ends well and removed when it does not.

    Every writer has a partial file of its own, so that of two each publishes a whole file, and the later
    rename counts. The file gets the permissions of any new one, whoever writes it: safetensors lets nobody
    else read what it writes. A partial file is written as it is: whoever made it publishes it.
    """
    if path.exists() and _PARTIAL.search(path.name):
        yield path
        return
    with partial_file(path, lambda partial: publish(partial, path)) as partial:
        yield partial


@contextmanager
def partial_file(path: Path, publish: Callable[[Path], None]) -> Iterator[Path]:
    """A new file beside `path`, given to `publish` once it is on the disk, if the block ends well.

    Then it is gone from its own place.

    Raises:
        PlaceError: it cannot be written there.
    """
    partial = path.with_name(f"{_stem(path)}{machine()}-{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        with placing(path, partial):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(path)
            partial.touch(exist_ok=False)
            mode = partial.stat().st_mode
            yield partial
            partial.chmod(mode)
            sync(partial)
            publish(partial)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def publish(partial: Path, path: Path) -> None:
    """Renames a file or folder that is on the disk, and sees to it that its new name is there, too."""
    os.replace(partial, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Waits until a file or folder is on the disk, where the file system can tell; of folders some cannot."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return  # a folder on Windows
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Waits until all that is in a folder is on the disk."""
    for parent, _, files in os.walk(folder):
        for name in files:
            sync(Path(parent, name))
        sync(Path(parent))


def machine() -> str:
    """What tells this machine, since it was started, and this space of process numbers from others."""
    boot, numbers = Path("/proc/sys/kernel/random/boot_id"), "/proc/self/ns/pid"
    known = [platform.node()]
    with contextlib.suppress(OSError):
        known += [boot.read_text(), os.readlink(numbers)]
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:8]


def remove_abandoned(path: Path) -> None:
    """Removes partial files of `path` whose writers are dead; what another machine writes is left alone."""
    pattern = re.compile(re.escape(_stem(path)) + machine() + r"-(\d+)-[0-9a-f]{8}\.partial")
    for entry in path.parent.iterdir():
        if (found := pattern.fullmatch(entry.name)) and not _alive(int(found[1])):
            with contextlib.suppress(OSError):  # another user's
                entry.unlink(missing_ok=True)


def _stem(path: Path) -> str:
    """What the names of a file's partial files begin with."""
    name = path.name
    if len(os.fsencode(name)) > _LONGEST:
        name = hashlib.sha256(name.encode()).hexdigest()
    return f".{name}."


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
