"""Sets of images by whatever holds them."""

from __future__ import annotations

import bisect
import os
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Protocol, runtime_checkable

from jaxtyping import UInt8
from torch import Tensor

from edadm.artifacts.digest import rows_digest, sha256_of
from edadm.config.fingerprint.content import images_digest
from edadm.config.inputs.folders import in_words as words
from edadm.config.inputs.sets import kind_of
from edadm.config.inputs.statistics import Crop
from edadm.errors import EdadmError
from edadm.metrics.images.archives import Member, in_database, in_tar, in_zip, tar_members
from edadm.metrics.images.cifar import batches_of, is_cifar, read_batch
from edadm.metrics.images.datasets import Images, ShardedImages, StackedImages
from edadm.metrics.images.sets import FolderImages, PictureImages


@runtime_checkable
class NamedImages(Images, Protocol):
    """Images that have names, a size in pixels (height, width), and remarks on what was left out."""

    @property
    def names(self) -> Sequence[str]: ...

    @property
    def size(self) -> tuple[int, int]: ...

    def remarks(self) -> list[str]: ...


def open_images(
    paths: Sequence[Path], resolution: int | None, crop: Crop = "square", as_stored: bool = True
) -> NamedImages:
    """The images in files and folders, of each in the order of their paths, one after the other.

    Args:
        paths: as `edadm.config.inputs.sets` knows them.
        resolution, crop: to which, and how, images of several sizes are brought.
        as_stored: pictures that are all of one size are left at it.

    Raises:
        EdadmError: a file is damaged or holds no images, or they are of several sizes and `resolution` is
            None; all is looked at before anything is decoded.
    """
    if all(kind_of(path) == "arrays" for path in paths):
        return ShardedImages(paths)
    sets = [_open(path, resolution, crop, as_stored) for path in paths]
    return sets[0] if len(sets) == 1 else _Joined(sets, paths)


def _open(path: Path, resolution: int | None, crop: Crop, as_stored: bool) -> NamedImages:
    kind, left_out = kind_of(path), Counter[str]()
    if kind == "arrays":
        return ShardedImages([path])
    if kind == "folder":
        return FolderImages(path, resolution, crop, as_stored)
    if kind == "cifar":
        files = [path / name for name in sorted(os.listdir(path))] if path.is_dir() else [path]
        return _cifar([file for file in files if is_cifar([file.name])], path)
    members: list[Member]
    if kind == "tar":
        members = tar_members(path)
        if is_cifar(names := [member.name for member in members]):
            return _cifar([member for member in members if is_cifar([member.name])], path)
        members = in_tar(members, left_out)
    else:
        members = in_database(path) if kind == "database" else in_zip(path, left_out)
    names = [member.name for member in members]
    return PictureImages(path, members, names, words(left_out), resolution, crop, as_stored)


def _cifar(files: Sequence, place: Path) -> StackedImages:
    return StackedImages([read_batch(file) for file in batches_of(files, place)], str(place))


def digest_of(paths: Sequence[Path]) -> str:
    """A hash of the content of a set of images, which does not tell in how many `.npy` files it lies."""
    if all(path.suffix.lower() == ".npy" for path in paths):
        return rows_digest(paths)
    notes = os.environ.get("EDADM_NOTES")
    found = [images_digest(path, Path(notes) if notes else None) for path in paths]
    return found[0] if len(found) == 1 else sha256_of(found)


class _Joined:
    """Several sets, one after the other, of images of one size.

    Raises:
        EdadmError: they are of several sizes.
    """

    def __init__(self, sets: Sequence[NamedImages], paths: Sequence[Path]):
        self.sets, self.ends = sets, list(accumulate(map(len, sets)))
        sizes = {each.size: path for path, each in zip(paths, sets, strict=True)}
        if len(sizes) > 1:
            (one, first), (other, second) = list(sizes.items())[:2]
            raise EdadmError(
                f"{first} holds images of {in_words(one)}, {second} of {in_words(other)}; set `resolution` "
                "to bring all to one size"
            )
        self.size = sets[0].size

    @property
    def names(self) -> list[str]:
        return [f"{place}/{name}" for place, each in enumerate(self.sets) for name in each.names]

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> UInt8[Tensor, "3 h w"]:
        place = bisect.bisect_right(self.ends, index)
        return self.sets[place][index - (self.ends[place - 1] if place else 0)]

    def remarks(self) -> list[str]:
        return [remark for each in self.sets for remark in each.remarks()]


def in_words(size: tuple[int, int]) -> str:
    """Height and width in pixels as people write them, width first."""
    return f"{size[1]} x {size[0]}"
