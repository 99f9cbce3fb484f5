"""Files of `torch.save`, zip archives and those before PyTorch 1.6, read without unpickling them."""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
import zlib
from functools import partial
from pathlib import Path

from torch import Tensor

from edadm.networks.weights.errors import CheckpointError, quoted
from edadm.networks.weights.packed.pickles import read_pickle
from edadm.networks.weights.packed.stored import Container
from edadm.networks.weights.packed.tensors import Storage, part_of, rebuilt, storage_named

MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of a file before PyTorch 1.6
_LOCAL_HEADER = struct.Struct("<4s22xHH")


def mapped(path: Path) -> mmap.mmap:
    """The bytes of a file, read when they are looked at; what is written to them stays in memory."""
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)


def open_legacy(path: Path) -> Container:
    """A file of `torch.save` before PyTorch 1.6: three small pickles, the object's, one of keys, the numbers.

    Raises:
        CheckpointError: not of this kind.
        ValueError, LookupError, TypeError: damaged.
    """
    file = mapped(path)
    magic = read_pickle(file, lambda _: None)
    if magic != MAGIC:
        raise CheckpointError(
            f"{path} is a plain pickle, which would have to be executed to be read; in the program that made"
            " it, write the tensors alone with `torch.save(model.state_dict(), 'clean.pt')`"
        )
    _, system = (read_pickle(file, lambda _: None) for _ in range(2))
    _refuse_other_byte_order(path, isinstance(system, dict) and system.get("little_endian") is False)
    seen: dict[str, Storage] = {}
    starts: dict[str, int] = {}
    call = partial(rebuilt, fetch=lambda storage: part_of(file, starts[storage.key], storage))
    content = read_pickle(file, lambda identifier: storage_named(identifier, seen), call)
    at = 0
    for key in read_pickle(file, lambda _: None):
        (count,) = struct.unpack("<q", file.read(8))
        storage = seen[str(key)]
        at = file.tell()
        if count != storage.count or at + count * storage.dtype.itemsize > len(file):
            raise ValueError("it is cut short")
        starts[storage.key] = at
        file.seek(at + count * storage.dtype.itemsize)
    if missing := set(seen) - set(starts):
        raise ValueError(f"it lacks the storages {', '.join(sorted(missing)[:3])}")
    return Container("a PyTorch file of the kind before 1.6", content)


def _refuse_other_byte_order(path: Path, is_big: bool) -> None:
    if is_big:
        again = "write it again on one like this, as safetensors"
        raise CheckpointError(f"{path} was written on a big-endian machine; {again}")


def open_zip(path: Path) -> Container:
    """A file of `torch.save` since PyTorch 1.6: an archive of a pickle and one record for each storage.

    Raises:
        CheckpointError: an archive of something else.
        ValueError, LookupError, TypeError, zipfile.BadZipFile: damaged.
    """
    archive = _Archive(path)
    order = archive.records.get(f"{archive.root}byteorder")
    _refuse_other_byte_order(path, order is not None and archive.read(order) == b"big")
    seen: dict[str, Storage] = {}
    pickled = io.BytesIO(archive.read(archive.records[f"{archive.root}data.pkl"]))
    call = partial(rebuilt, fetch=archive.fetch)
    content = read_pickle(pickled, lambda identifier: storage_named(identifier, seen), call)
    for storage in seen.values():
        if archive.record(storage).file_size < storage.count * storage.dtype.itemsize:
            raise ValueError("a record is shorter than the tensors in it")
    return Container("a PyTorch file", content)


class _Archive:
    """The records of a zip archive, each compared with its checksum when it is first looked at."""

    def __init__(self, path: Path):
        self.path = path
        with zipfile.ZipFile(path) as archive:
            self.records = {entry.filename: entry for entry in archive.infolist()}
        self.root = _root(path, self.records)
        self.mapped = mapped(path)
        self.located: dict[str, tuple[mmap.mmap | bytearray, int]] = {}

    def record(self, storage: Storage) -> zipfile.ZipInfo:
        """Where a storage lies."""
        return self.records[f"{self.root}data/{storage.key}"]

    def fetch(self, storage: Storage) -> Tensor:
        """The bytes of a storage.

        Raises:
            ValueError, zipfile.BadZipFile: damaged.
        """
        return part_of(*self._locate(self.record(storage)), storage)

    def read(self, record: zipfile.ZipInfo) -> bytes:
        """The bytes of a small record."""
        whole, start = self._locate(record)
        return bytes(whole[start : start + record.file_size])

    def _locate(self, record: zipfile.ZipInfo) -> tuple[mmap.mmap | bytearray, int]:
        """What holds a record's bytes, and where they begin in it."""
        if record.filename in self.located:
            return self.located[record.filename]
        place: tuple[mmap.mmap | bytearray, int]
        if record.compress_type != zipfile.ZIP_STORED or record.flag_bits & 1:
            with zipfile.ZipFile(self.path) as archive:
                place = (bytearray(archive.read(record)), 0)
        else:
            place = (self.mapped, self._start(record))
            with memoryview(self.mapped) as view, view[place[1] : place[1] + record.file_size] as part:
                if record.CRC and zlib.crc32(part) != record.CRC:  # 0 where PyTorch was told to write none
                    raise ValueError(f"the record {record.filename.rpartition('/')[2]} is damaged")
        self.located[record.filename] = place
        return place

    def _start(self, record: zipfile.ZipInfo) -> int:
        at = record.header_offset
        signature, name, extra = _LOCAL_HEADER.unpack(self.mapped[at : at + _LOCAL_HEADER.size])
        if signature != b"PK\x03\x04":
            raise ValueError("a record is not where it should be")
        return at + _LOCAL_HEADER.size + int(name) + int(extra)


def _root(path: Path, records: dict[str, zipfile.ZipInfo]) -> str:
    """The folder of the archive in which the pickle lies.

    Raises:
        CheckpointError: the archive is a program, arrays of numpy, or packed files.
    """
    names = sorted(records)
    roots = [name.removesuffix("data.pkl") for name in names if f"/{name}".endswith("/data.pkl")]
    root = min(roots, key=len, default=None)
    if any(name.endswith(".npy") for name in names):
        what = "an archive of numpy arrays (.npz), not weights"
        raise CheckpointError(f"{path} is {what}; name the checkpoint it was made from")
    if root is None:
        inside = ", ".join(map(quoted, names[:3])) or "nothing"
        what = f"a zip archive without weights of PyTorch (inside: {inside})"
        raise CheckpointError(f"{path} is {what}; unpack it, and name the file")
    if any(name == f"{root}constants.pkl" or name.startswith(f"{root}code/") for name in names):
        raise CheckpointError(
            f"{path} is a TorchScript program; where you trust it, write its tensors alone with"
            " `torch.save(torch.jit.load('FILE').state_dict(), 'clean.pt')`"
        )
    return root
