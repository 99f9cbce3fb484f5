"""Sets of pictures in folders, archives and databases, decoded when asked for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from edadm.config.fingerprint.content import images_digest
from edadm.config.inputs.folders import list_images
from edadm.config.inputs.statistics import Crop
from edadm.errors import EdadmError
from edadm.metrics.images.pictures import Stored, cropped, look, opened, rgb

SHOWN = 3  # sizes in a sentence


class PictureImages:
    """Pictures in an order, each prepared by `cropped`.

    As torch-fidelity and pytorch-fid read them: palettes, grey and CMYK become RGB by Pillow, rotations in
    EXIF are left alone, an alpha channel that is opaque everywhere is dropped. Other than there, 16-bit grey
    is scaled to 8 bits instead of clipped to white, and what has no one meaning is refused: see
    `edadm.metrics.images.pictures`.

    Args:
        place: where they lie.
        pictures: in order.
        names: of each within the place.
        left_out: what else lies there, in words.
        resolution: side in pixels; None leaves the images as they are.
        crop: how they come to it.
        as_stored: images that are all of one size are left at it.

    Raises:
        EdadmError: there are none, or some cannot be scored; every file's head is looked at, and whether it
            ends where it should.
    """

    def __init__(
        self,
        place: Path,
        pictures: Sequence[Stored],
        names: Sequence[str],
        left_out: str | None,
        resolution: int | None,
        crop: Crop = "square",
        as_stored: bool = False,
    ):
        if not pictures:
            raise EdadmError(f"{place} holds no images{f' (left out: {left_out})' if left_out else ''}")
        self.place, self.pictures, self.crop = place, pictures, crop
        self.names = _without_common_folders(names)
        self._left_out, self._rotated = left_out, 0
        sizes = self._look_at_all(resolution)
        self.resolution = None if as_stored and len(sizes) == 1 else resolution
        self.size = (self.resolution, self.resolution) if self.resolution else next(iter(sizes))[::-1]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> UInt8[Tensor, "3 h w"]:
        with opened(self.pictures[index]) as image:
            seen = rgb(image)
        seen = seen if self.resolution is None else cropped(seen, self.resolution, self.crop)
        return torch.from_numpy(np.array(seen)).permute(2, 0, 1).contiguous()

    def digest(self) -> str:
        """A hash of the place's content; a job of the workflow reads again only what changed."""
        notes = os.environ.get("EDADM_NOTES")
        return images_digest(self.place, Path(notes) if notes else None)

    def remarks(self) -> list[str]:
        """Sentences on what a person may have expected otherwise."""
        found = (
            []
            if self._left_out is None
            else [f"{self.place}: {len(self.pictures)} images; left out: {self._left_out}"]
        )
        if self._rotated:
            found.append(
                f"{self.place}: {self._rotated} images carry a rotation (EXIF); pixels are taken as they "
                "are stored"
            )
        return found

    def _look_at_all(self, resolution: int | None) -> Counter[tuple[int, int]]:
        mistakes, sizes = [], Counter[tuple[int, int]]()
        for file in self.pictures:
            try:
                size, rotated = look(file)
            except EdadmError as error:
                mistakes.append(str(error))
            else:
                sizes[size] += 1
                self._rotated += rotated
        if mistakes:
            more = f" (and {len(mistakes) - 1} more of {len(self.pictures)} files)" if mistakes[1:] else ""
            raise EdadmError(mistakes[0] + more)
        if resolution is None and len(sizes) > 1:
            shown = ", ".join(
                f"{count} of {width} x {height}" for (width, height), count in sizes.most_common(SHOWN)
            )
            raise EdadmError(
                f"{self.place} holds images of several sizes ({shown}); set `resolution` to bring all to one"
            )
        return sizes


class FolderImages(PictureImages):
    """Images below a folder, in the order of their paths.

    Args:
        folder: searched with its sub-folders; see `edadm.config.inputs.folders.list_images` for what counts.
        resolution, crop, as_stored: as of `PictureImages`.
    """

    def __init__(self, folder: Path, resolution: int | None, crop: Crop = "square", as_stored: bool = False):
        listing = list_images(folder)
        names = [file.relative_to(folder).as_posix() for file in listing.files]
        self.files = listing.files
        super().__init__(folder, listing.files, names, listing.remark(), resolution, crop, as_stored)


def _without_common_folders(names: Sequence[str]) -> list[str]:
    """Names without the folders that all of them lie in, and without what their files' kinds are called."""
    parts = [PurePosixPath(name).parts for name in names]
    shared = 0
    while all(len(part) > shared + 1 and part[shared] == parts[0][shared] for part in parts):
        shared += 1
    return [str(PurePosixPath(*part[shared:]).with_suffix("")) for part in parts]
