"""Images to score, one at a time from files, so that fifty thousand of them need not fit into memory."""

from __future__ import annotations

import bisect
import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from edadm.artifacts import reading
from edadm.config.inputs.folders import list_images
from edadm.errors import EdadmError
from edadm.metrics.images.pictures import look, opened, rgb


@runtime_checkable
class Images(Protocol):
    """Images by index; a uint8 tensor (n, 3, h, w) is one too."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> UInt8[Tensor, "3 h w"]: ...


def centre_square(image: Image.Image, side: int) -> Image.Image:
    """The largest centred square, resized to `side` with Pillow's bicubic filter.

    As the LSUN loader of latent diffusion prepares real images (method, 5.3); FID depends on it.
    """
    width, height = image.size
    shorter = min(width, height)
    left, top = (width - shorter) // 2, (height - shorter) // 2
    square = image.crop((left, top, left + shorter, top + shorter))
    return square if shorter == side else square.resize((side, side), Image.Resampling.BICUBIC)


def _pixels(image: Image.Image) -> UInt8[Tensor, "3 h w"]:
    """An image as numbers; grey ones three times the same."""
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


class ShardedImages:
    """Generated images in the `.npy` files of all shards, read when asked for.

    Raises:
        EdadmError: a file holds anything but uint8 images (n, 3, h, w); all are empty.
    """

    def __init__(self, files: Sequence[Path]):
        self.shards = [_open(file) for file in files]
        self.ends = list(accumulate(len(shard) for shard in self.shards))
        if not self.ends or self.ends[-1] == 0:
            raise EdadmError(
                f"{', '.join(map(str, files)) or 'no file'} holds no images; generate them again"
            )

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> UInt8[Tensor, "3 h w"]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = bisect.bisect_right(self.ends, index)
        start = self.ends[shard - 1] if shard else 0
        return torch.from_numpy(np.array(self.shards[shard][index - start]))


def _open(file: Path) -> np.ndarray:
    with reading(file, "generate them again", what="images"):
        images = np.load(file, mmap_mode="r", allow_pickle=False)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise EdadmError(
            f"{file} holds {images.dtype} {images.shape}, not uint8 images (n, 3, h, w); generate them again"
        )
    return images


class FolderImages:
    """Images below a folder, in the order of their paths, each prepared by `centre_square`.

    As torch-fidelity and pytorch-fid read them: palettes, grey and CMYK become RGB by Pillow, rotations in
    EXIF are left alone, an alpha channel that is opaque everywhere is dropped. Other than there, 16-bit grey
    is scaled to 8 bits instead of clipped to white, and what has no one meaning is refused: see
    `edadm.metrics.images.pictures`.

    Args:
        folder: searched with its sub-folders; see `edadm.config.inputs.folders.list_images` for what counts.
        resolution: side in pixels; None leaves the images as they are.

    Raises:
        EdadmError: there are none, or some cannot be scored; every file's head is looked at, and whether it
            ends where it should.
    """

    def __init__(self, folder: Path, resolution: int | None):
        listing = list_images(folder)
        self.folder, self.files, self.resolution = folder, listing.files, resolution
        self._left_out, self._rotated = listing.remark(), 0
        self._look_at_all()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> UInt8[Tensor, "3 h w"]:
        file = self.files[index]
        with opened(file) as image:
            pixels = rgb(image)
        return _pixels(pixels if self.resolution is None else centre_square(pixels, self.resolution))

    def digest(self) -> str:
        """A hash of the names and sizes of all files.

        It tells most changes of a set without reading a million images.
        """
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file.relative_to(self.folder)}\0{file.stat().st_size}\n".encode())
        return digest.hexdigest()

    def remarks(self) -> list[str]:
        """Sentences on what a person may have expected otherwise."""
        found = (
            []
            if self._left_out is None
            else [f"{self.folder}: {len(self.files)} images; left out: {self._left_out}"]
        )
        if self._rotated:
            found.append(
                f"{self.folder}: {self._rotated} images carry a rotation (EXIF); pixels are taken as they "
                "are stored"
            )
        return found

    def _look_at_all(self) -> None:
        mistakes, sizes = [], Counter[tuple[int, int]]()
        for file in self.files:
            try:
                size, rotated = look(file)
            except EdadmError as error:
                mistakes.append(str(error))
            else:
                sizes[size] += 1
                self._rotated += rotated
        if mistakes:
            more = f" (and {len(mistakes) - 1} more of {len(self.files)} files)" if mistakes[1:] else ""
            raise EdadmError(mistakes[0] + more)
        if self.resolution is None and len(sizes) > 1:
            shown = ", ".join(
                f"{count} of {width} x {height}" for (width, height), count in sizes.most_common(3)
            )
            raise EdadmError(
                f"{self.folder} holds images of several sizes ({shown}); set `resolution` to bring all to one"
            )


class SomeImages:
    """Some of other images, by their numbers among these."""

    def __init__(self, images: Images, rows: range):
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> UInt8[Tensor, "3 h w"]:
        return self.images[self.rows[index]]


class PreparedImages:
    """Other images, each prepared by `centre_square`."""

    def __init__(self, images: Images, resolution: int):
        self.images, self.resolution = images, resolution

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> UInt8[Tensor, "3 h w"]:
        pixels = self.images[index]
        if pixels.shape[1:] == (self.resolution, self.resolution):
            return pixels
        return _pixels(centre_square(Image.fromarray(pixels.permute(1, 2, 0).numpy()), self.resolution))


def prepared(images: Images, resolution: int | None) -> Images:
    """The images as they are scored: at `resolution`, or as they are if it is None."""
    return images if resolution is None else PreparedImages(images, resolution)
