"""Failures of disks and of damaged files, in whatever words a library has for them, as one sentence.

safetensors, HDF5, zarr and NumPy each say "no space left" in an exception of their own, some of them without
the system's number. Artifacts, and what users bring along (images, prompts, statistics, tables), are read and
written inside `reading` or `placing`. Three kinds have sentences of their own: configurations
(`edadm.config.inputs.settings`), which name lines, descriptions of networks (`edadm.networks.settings`),
which build on nothing, and weights of others (`edadm.networks.weights`), which say what a file is.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edadm.artifacts.errors import DamagedError, PlaceError
from edadm.console import size
from edadm.errors import EdadmError

AGAIN = "copy it again or make it again"
_NUMBER = re.compile(r"(?:os error|errno =?|Errno) ?(\d+)")  # safetensors, HDF5 and Python, in their messages
_OF_TORCH = re.compile("PytorchStreamWriter|inline_container|iostream error")  # whose writer says no more
_PIECE, _TRIED = 2**16, 16  # bytes, and how often a file is asked to take them, to learn why it does not
_WRITE = "and start again: finished pieces are kept"
_REASONS = {  # what the system says, and what mends it
    errno.ENOSPC: ("its disk is full", f"make room there {_WRITE}"),
    errno.EDQUOT: ("the quota of its user there is used up", f"make room there {_WRITE}"),
    errno.EFBIG: ("it would be larger than a file may be there", f"raise `ulimit -f` {_WRITE}"),
    errno.EROFS: ("its disk can only be read", "make it writable, or name a folder that is"),
    errno.EIO: ("its disk reports an error", f"look at that disk {_WRITE}"),
    errno.ESTALE: ("its disk was taken away meanwhile", f"bring it back {_WRITE}"),
    errno.EMFILE: ("too many files are open at once", f"raise `ulimit -n` {_WRITE}"),
    errno.ENOENT: ("its folder is gone", f"leave it where it was {_WRITE}"),
    errno.ENAMETOOLONG: ("its name is too long", "name a shorter path"),
    **dict.fromkeys(
        (errno.ENOTDIR, errno.EEXIST), ("a file lies where a folder belongs", "move that file elsewhere")
    ),
    **dict.fromkeys(
        (errno.EISDIR, errno.ENOTEMPTY), ("a folder lies where it belongs", "move that folder elsewhere")
    ),
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM),
        ("{who} may not write there", "make it and its folder writable, or name a folder that is"),
    ),
}
_OF_NAMES = {errno.ENOENT, errno.ENAMETOOLONG, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOTEMPTY}
_FULL_OF_FILES = "its disk has room for no more files", f"remove some there (`df -i`) {_WRITE}"


@contextmanager
def placing(path: Path, partial: Path | None = None) -> Iterator[None]:
    """Inside the context, what keeps a file or folder from being written is told in one sentence.

    Args:
        path: named in it.
        partial: under which other name the block writes it.

    Raises:
        PlaceError: the system refused; all else that the block raises is left alone.
    """
    try:
        yield
    except EdadmError:
        raise
    except Exception as error:
        number = _number(error, partial or path)
        if number not in _REASONS and not (isinstance(error, OSError) and str(error)):
            raise
        raise PlaceError(_sentence(path, number, reason(error))) from None


def file_place(path: Path | None) -> Path | None:
    """The path of a file that is to be written, looked at before the work that it is for.

    Raises:
        PlaceError: a folder is there, or it could not be written.
    """
    return path and _place(path, folder=False)


def folder_place(path: Path | None) -> Path | None:
    """The path of a folder that is to be written, looked at before the work that it is for.

    Raises:
        PlaceError: a file is there, or it could not be written.
    """
    return path and _place(path, folder=True)


def _place(path: Path, folder: bool) -> Path:
    with placing(path):
        if path.is_dir() and not folder:
            raise PlaceError(f"{path} is a folder; name the file to write, there or elsewhere")
        if path.is_file() and folder:
            raise PlaceError(f"{path} is a file; name the folder to write")
        above = next(entry for entry in path.absolute().parents if entry.exists())
        if not above.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if os.statvfs(above).f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if not os.access(above, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return path


@contextmanager
def reading(
    path: Path, fix: str = AGAIN, refusal: type[EdadmError] = DamagedError, what: str = ""
) -> Iterator[None]:
    """Inside the context nothing is done but reading a file, so that whatever is raised is the file's fault.

    Args:
        path: of the file.
        fix: what the sentence ends with.
        refusal: the error to raise.
        what: the file should be, e.g. "JSON".
    """
    try:
        yield
    except EdadmError:
        raise
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.EACCES, errno.EPERM):
            raise refusal(f"{path} cannot be read ({_user()} may not); make it readable") from None
        form = what and f" as {what}"
        raise refusal(f"{path} cannot be read{form} ({reason(error)}); {fix}") from None


def reason(error: Exception) -> str:
    """An exception of any library in half a sentence."""
    if isinstance(error, OSError) and (number := error.errno or _in_words(error)):
        return os.strerror(number).lower()
    if isinstance(error, EOFError):
        return "it ends too early"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"it lacks {lines[0]}" if isinstance(error, KeyError) else lines[0]


def told(error: OSError) -> str | None:
    """The sentence for an error of a disk that nobody caught where the file was known; None for others."""
    if error.errno not in _REASONS or error.errno in _OF_NAMES:
        return None
    because, fix = _REASONS[error.errno]
    if error.errno in (errno.EACCES, errno.EPERM):  # of a file that was read, perhaps
        because, fix = "{who} may not use it so", "change its rights or its folder's, or name another"
    return f"{error.filename or 'a file'}: {because.format(who=_user())}; {fix}"


def _number(error: Exception, written: Path) -> int | None:
    """The system's number of an error, also where a library hides it."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    if number := _in_words(error):
        return number
    hidden = (isinstance(error, OSError) and str(error)) or _OF_TORCH.search(str(error))
    return _asked_again(written) if hidden else None


def _in_words(error: Exception) -> int | None:
    """The system's number in what a library says."""
    found = _NUMBER.search(str(error))
    return int(found[1]) if found else None


def _asked_again(written: Path) -> int | None:
    """Why a file takes no more, found by trying: NumPy and PyTorch say that writing failed, but not why."""
    try:
        with open(written, "r+b", buffering=0) as file:
            file.seek(0, os.SEEK_END)
            for _ in range(_TRIED):
                file.write(bytes(_PIECE))
            os.fsync(file.fileno())
    except OSError as error:
        return error.errno
    return None


def _sentence(path: Path, number: int | None, said: str) -> str:
    because, fix = _REASONS.get(number or 0, (f"the system says: {said}", f"look at its disk {_WRITE}"))
    there = next((folder for folder in (path, *path.parents) if folder.is_dir()), Path())
    with suppress(OSError, AttributeError):  # no such call on Windows
        space = os.statvfs(there)
        if number == errno.ENOSPC and space.f_files and not space.f_favail:
            because, fix = _FULL_OF_FILES
        elif number == errno.ENOSPC:
            because += f" ({size(space.f_bavail * space.f_frsize)} of {there.absolute()} are free)"
    return f"{path} cannot be written, since {because.format(who=_user())}; {fix}"


def _user() -> str:
    with suppress(ImportError, KeyError):
        import pwd

        return f"user {pwd.getpwuid(os.geteuid()).pw_name}"
    return "this user"
