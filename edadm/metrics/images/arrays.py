"""Pixels in NumPy files: our own images, batches of guided-diffusion's samplers, and arrays of others."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from edadm.artifacts import reading
from edadm.errors import EdadmError

IMAGES, LABELS = "arr_0", "arr_1"  # in an .npz of guided-diffusion
_LOCAL_HEADER, _NAMES = 30, 26  # bytes before a member's name, and where its two lengths stand
_COLOURS, _OPACITY = 3, 4
_NEEDED = "give uint8 (n, h, w, 3) or (n, 3, h, w) from 0 to 255"


def stack(file: Path) -> UInt8[np.ndarray, "n 3 h w"]:
    """The images of an `.npy` or `.npz` file, mapped where it is not compressed.

    Channels may be first or last (first, where both could be); grey images, (n, h, w) or of one channel, are
    seen as three equal channels. An `.npz` has them as `arr_0`, or as its only array, and may have labels
    beside them.

    Raises:
        EdadmError: anything else, with what to do about it.
    """
    with reading(file, "make or copy it again", what="images"):
        if not file.stat().st_size:
            raise ValueError("it is empty")
        found = _in_archive(file) if file.suffix.lower() == ".npz" else _mapped(file)
    return _channels_first(file, found)


def _mapped(file: Path) -> Any:
    return np.load(file, mmap_mode="r", allow_pickle=False)


def _in_archive(file: Path) -> Any:
    if not zipfile.is_zipfile(file):
        raise ValueError("it is cut short, or no .npz archive")
    with np.load(file, allow_pickle=False) as archive:
        names = archive.files
        if IMAGES not in names and len(names) != 1:
            has = ", ".join(names) or "nothing"
            raise EdadmError(
                f"{file} has no array `{IMAGES}` of images (it has {has}); save them by that name"
            )
        name = IMAGES if IMAGES in names else names[0]
        images = _inside(file, f"{name}.npy")
        images = archive[name] if images is None else images
        labels = len(archive[LABELS]) if LABELS in names and archive[LABELS].ndim else None
    if images.ndim and labels not in (None, len(images)):
        raise EdadmError(
            f"{file} holds {len(images)} images and {labels} labels, so one of them was cut; save both again"
        )
    return images


def _inside(file: Path, member: str) -> Any:
    """An array that lies uncompressed in an archive, mapped; None if it is compressed."""
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo(member)
    if info.compress_type != zipfile.ZIP_STORED:
        return None
    with open(file, "rb") as stored:
        stored.seek(info.header_offset)
        head = stored.read(_LOCAL_HEADER)
        lengths = np.frombuffer(head, "<u2", 2, _NAMES)
        start = info.header_offset + _LOCAL_HEADER + int(lengths.sum())
        stored.seek(start)
        version = np.lib.format.read_magic(stored)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, by_columns, dtype = read(stored)
        offset = stored.tell()
        length = offset - start + int(np.prod(shape)) * dtype.itemsize
    if dtype.hasobject or length != info.file_size:
        raise ValueError("its array has another size than it says")
    return np.memmap(file, dtype, "r", offset, shape, "F" if by_columns else "C") if np.prod(shape) else None


def _channels_first(file: Path, images: Any) -> UInt8[np.ndarray, "n 3 h w"]:
    """The same images as (n, 3, h, w).

    Raises:
        EdadmError: they are no 8-bit images, or have more than colours.
    """
    said = f"{file} holds {images.dtype} {images.shape}"
    if np.issubdtype(images.dtype, np.floating):
        raise EdadmError(
            f"{said}, whose range no file says; save 8 bits, e.g. of [-1, 1] "
            "`((x + 1) * 127.5).clip(0, 255).round().astype('uint8')`"
        )
    if images.dtype == np.uint16:
        raise EdadmError(f"{said}, 16 bits; save 8, e.g. `(x / 257).round().astype('uint8')`")
    if images.dtype != np.uint8:
        raise EdadmError(f"{said}, no images of 8 bits; {_NEEDED}")
    if images.ndim == 3 and images.shape[2] not in (_COLOURS, _OPACITY):
        images = images[:, None]
    if images.ndim != 4:
        raise EdadmError(f"{said}, no stack of images; {_NEEDED}")
    if not len(images) or not images.size:
        return images.reshape(0, _COLOURS, *images.shape[2:])
    channels = [axis for axis in (1, 3) if images.shape[axis] in (_COLOURS, 1)]
    if not channels:
        alpha = _OPACITY in (images.shape[1], images.shape[3])
        what = "with an alpha channel, whose colours depend on what lies behind" if alpha else "no colours"
        raise EdadmError(f"{said}, {what}; {_NEEDED}")
    colours = [axis for axis in channels if images.shape[axis] == _COLOURS]
    first = np.moveaxis(images, (colours or channels)[0], 1)
    return np.broadcast_to(first, (len(first), _COLOURS, *first.shape[2:]))
