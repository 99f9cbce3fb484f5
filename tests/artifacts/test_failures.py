"""Every library's words for a disk that refuses, and for a file that is damaged, end in one sentence."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import zarr
from PIL import Image
from safetensors.torch import load_file, save_file

from edadm.artifacts import DamagedError, PlaceError, placing, reading, writing
from edadm.artifacts.failures import told

SIZE = 400_000  # bytes, more than a file may have here


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may be larger than 64 KiB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def numpy_array(path: Path) -> None:
    with open(path, "wb") as file:
        np.save(file, np.zeros(SIZE, dtype="uint8"))


def hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=np.zeros(SIZE, dtype="uint8"))


WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text("a" * SIZE),
    "safetensors": lambda path: save_file({"a": torch.zeros(SIZE, dtype=torch.uint8)}, path),
    "NumPy": numpy_array,
    "PyTorch": lambda path: torch.save(torch.zeros(SIZE, dtype=torch.uint8), path),
    "HDF5": hdf5,
}


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("library", WRITERS)
def test_a_file_that_does_not_fit_is_named(library: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    with pytest.raises(PlaceError) as refused, writing(path) as partial:
        WRITERS[library](partial)
    expected = (
        f"{path} cannot be written, since it would be larger than a file may be there; raise `ulimit -f`"
    )
    assert str(refused.value) == f"{expected} and start again: finished pieces are kept"
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.usefixtures("small_files")
def test_a_store_that_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(PlaceError, match=r"a\.zarr cannot be written"), placing(tmp_path / "a.zarr"):
        zarr.create_group(tmp_path / "a.zarr").create_array(
            "a",
            data=np.random.default_rng(0).random(SIZE),
            compressors=None,
        )


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (errno.EDQUOT, "the quota of its user there is used up; make room there"),
        (errno.EROFS, "its disk can only be read; make it writable"),
        (errno.EMFILE, "too many files are open at once; raise `ulimit -n`"),
        (errno.EACCES, "may not write there; make it and its folder writable"),
        (errno.EBUSY, "the system says: device or resource busy; look at its disk"),
    ],
)
def test_what_the_system_says_becomes_a_sentence(code: int, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(PlaceError) as refused, placing(tmp_path / "a"):
        raise OSError(code, os.strerror(code))
    assert sentence in str(refused.value)


def test_other_mistakes_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(KeyError), placing(tmp_path):
        raise KeyError("a")
    assert told(FileNotFoundError(errno.ENOENT, "no such file", "x")) is None
    assert told(OSError(errno.ENOSPC, "no space", "x")) == (
        "x: its disk is full; make room there and start again: finished pieces are kept"
    )
    said = told(PermissionError(errno.EACCES, "permission denied", "x"))  # to read, or to write
    assert said is not None
    assert re.fullmatch(r"x: .* may not use it so; change its rights or its folder's, or name another", said)


READERS: dict[str, Callable[[Path], object]] = {
    "safetensors": load_file,
    "NumPy": lambda path: np.load(path, allow_pickle=False),
    "NumPy, mapped": lambda path: np.load(path, mmap_mode="r", allow_pickle=False),
    "HDF5": h5py.File,
    "zarr": lambda path: zarr.open_group(path, mode="r"),
    "Pillow": lambda path: Image.open(path).close(),
    "JSON": lambda path: json.loads(path.read_text()),
    "zip": zipfile.ZipFile,
}


@pytest.mark.parametrize("content", [b"", b"{", b"\x93NUMPY\x01\x00", b"\xff" * 9, None])
@pytest.mark.parametrize("library", READERS)
def test_a_file_that_cannot_be_read_is_named(library: str, content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DamagedError) as refused, reading(path, "make it again"):
        READERS[library](path)
    sentence = str(refused.value)
    assert sentence.startswith(f"{path} cannot be read (")
    assert sentence.endswith("); make it again")
    assert "\n" not in sentence
