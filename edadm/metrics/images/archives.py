"""Pictures that lie in an archive or a database, which are read from it one by one and never unpacked."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, Literal

from edadm.artifacts import reading
from edadm.config.inputs.folders import images_among
from edadm.errors import EdadmError

_AGAIN = "copy or make it again"
_LARGEST = 2**28  # bytes of a picture's file
_TIMES = 200  # as large as its archive: pictures hardly shrink, but what fills up small files does
_PIECE = 2**20
_COMPRESSED: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}


@dataclass(frozen=True)
class Member:
    """A file in an archive, by its name there."""

    archive: Path
    name: str
    read: Callable[[], bytes] = field(repr=False, compare=False)

    def open(self, mode: Literal["rb"]) -> io.BytesIO:
        """Its bytes, in memory."""
        return io.BytesIO(self.read())

    def __str__(self) -> str:
        return f"{self.archive}/{self.name}"


def in_zip(path: Path, left_out: Counter[str]) -> list[Member]:
    """The pictures in a zip archive, in the order of their paths.

    Raises:
        DamagedError: no such archive, or a damaged one.
        EdadmError: several of its pictures have one name, or one is larger than an image needs.
    """
    with reading(path, _AGAIN, what="a zip archive"):
        archive = zipfile.ZipFile(path)
        infos = [info for info in archive.infolist() if not info.is_dir()]
        files = {info.filename: info for info in infos}
        if any(info.flag_bits & 1 for info in files.values()):
            raise ValueError("it is encrypted")
    names = images_among(files, left_out)
    _refuse_repeated(path, [info.filename for info in infos], names)
    _refuse_large(path, {name: files[name].file_size for name in names})
    return [Member(path, name, partial(archive.read, files[name])) for name in names]


def tar_members(path: Path) -> list[Member]:
    """All files in a tar archive, of which a compressed one is laid out on the disk for temporary files.

    Raises:
        DamagedError: no such archive, or a damaged one.
        EdadmError: several of them have one name, or one is larger than an image needs.
    """
    with reading(path, _AGAIN, what="a tar archive"):
        plain = _plain(path)
        with tarfile.open(fileobj=plain, mode="r:") as archive:
            infos = [info for info in archive if info.isreg() and not info.issparse()]
    files = {info.name: info for info in infos}

    def read(info: tarfile.TarInfo) -> bytes:
        found = os.pread(plain.fileno(), info.size, info.offset_data)  # threads share the file's position
        if len(found) < info.size:
            raise EOFError
        return found

    _refuse_repeated(path, [info.name for info in infos], files)
    _refuse_large(path, {name: info.size for name, info in files.items()})
    return [Member(path, name, partial(read, info)) for name, info in files.items()]


def in_tar(members: list[Member], left_out: Counter[str]) -> list[Member]:
    """The pictures among the files of a tar archive, in the order of their paths."""
    by_name = {member.name: member for member in members}
    return [by_name[name] for name in images_among(by_name, left_out)]


def _plain(path: Path) -> IO[bytes]:
    """A tar archive that is not compressed, or no longer."""
    with open(path, "rb") as file:
        head = file.read(max(map(len, _COMPRESSED)))
    opener = next((found for start, found in _COMPRESSED.items() if head.startswith(start)), None)
    if opener is None:
        return open(path, "rb")
    most = _TIMES * path.stat().st_size
    laid_out = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the members
    with opener(path) as packed:
        while piece := packed.read(_PIECE):
            laid_out.write(piece)
            if laid_out.tell() > most:
                raise ValueError(f"it unpacks to more than {_TIMES} times its size, as no images do")
    laid_out.seek(0)
    return laid_out


def in_database(path: Path) -> list[Member]:
    """The pictures in an LMDB, as LSUN comes, in the order of their keys.

    Raises:
        EdadmError: its reader is not installed, or cannot read it.
    """
    try:
        import lmdb
    except ImportError:
        raise EdadmError(
            f"{path} is a database of LMDB, whose reader is absent; install it (`pip install lmdb`), or "
            "write its images to a folder"
        ) from None
    with reading(path, _AGAIN, what="a database of images"):
        base: Any = lmdb.open(str(path), readonly=True, lock=False, readahead=False)
        with base.begin() as transaction:
            keys = [bytes(key) for key in transaction.cursor().iternext(values=False)]

    def read(key: bytes) -> bytes:
        with base.begin() as transaction:
            return bytes(transaction.get(key))

    return [Member(path, key.decode("latin-1"), partial(read, key)) for key in keys]


def _refuse_repeated(path: Path, members: Iterable[str], names: Iterable[str]) -> None:
    """Refuses an archive with several files of one name, of which whoever unpacks it has the last alone."""
    times = Counter(members)
    if repeated := [name for name in names if times[name] > 1]:
        raise EdadmError(
            f"{path}/{repeated[0]} is in the archive {times[repeated[0]]} times; make the archive again, "
            "with every image once"
        )


def _refuse_large(path: Path, sizes: dict[str, int]) -> None:
    if large := [name for name, size in sizes.items() if size > _LARGEST]:
        raise EdadmError(
            f"{path}/{large[0]} is {sizes[large[0]]:,} bytes large, more than an image needs; take it out of "
            "the archive"
        )
