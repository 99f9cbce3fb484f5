"""Images to score, one at a time from files, so that fifty thousand of them need not fit into memory."""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from edadm.errors import EdadmError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@runtime_checkable
class Images(Protocol):
    """Images by index; a uint8 tensor (n, 3, h, w) is one too."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> UInt8[Tensor, "3 h w"]: ...


def centre_square(image: Image.Image, side: int) -> Image.Image:
    """The largest centred square, resized to `side` with Pillow's bicubic filter.

    As the LSUN loader of latent diffusion prepares real images (method 5.3); FID depends on it.
    """
    width, height = image.size
    shorter = min(width, height)
    left, top = (width - shorter) // 2, (height - shorter) // 2
    square = image.crop((left, top, left + shorter, top + shorter))
    return square if shorter == side else square.resize((side, side), Image.Resampling.BICUBIC)


def preparation(resolution: int | None) -> str:
    """What `resolution` does to an image, in words for the conditions of a number."""
    return "none" if resolution is None else f"centre crop to a square, bicubic to {resolution} px"


def _pixels(image: Image.Image) -> UInt8[Tensor, "3 h w"]:
    return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


class ShardedImages:
    """Generated images in the `.npy` files of all shards, read when asked for.

    Raises:
        EdadmError: a file holds anything but uint8 images (n, 3, h, w).
    """

    def __init__(self, files: Sequence[Path]):
        self.shards = [_open(file) for file in files]
        self.ends = list(accumulate(len(shard) for shard in self.shards))

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> UInt8[Tensor, "3 h w"]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = bisect.bisect_right(self.ends, index)
        start = self.ends[shard - 1] if shard else 0
        return torch.from_numpy(np.array(self.shards[shard][index - start]))


def _open(file: Path) -> np.ndarray:
    try:
        images = np.load(file, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise EdadmError(f"{file} does not hold images ({error}); generate them again") from None
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3:
        raise EdadmError(f"{file} holds {images.dtype} {images.shape}, not uint8 images (n, 3, h, w); generate them again")
    return images


class FolderImages:
    """Images below a folder, in the order of their paths, each prepared by `centre_square`.

    Args:
        folder: searched with its sub-folders for .png, .jpg, .jpeg, .webp and .bmp files.
        resolution: side in pixels; None leaves the images as they are.

    Raises:
        EdadmError: there are none.
    """

    def __init__(self, folder: Path, resolution: int | None):
        self.folder = folder
        self.files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        self.resolution = resolution
        if not self.files:
            raise EdadmError(f"{folder} holds no images; put the reference images there as {', '.join(SUFFIXES)}")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> UInt8[Tensor, "3 h w"]:
        try:
            with Image.open(self.files[index]) as image:
                pixels = image.convert("RGB")
                return _pixels(pixels if self.resolution is None else centre_square(pixels, self.resolution))
        except OSError as error:
            raise EdadmError(f"{self.files[index]} cannot be read as an image ({error}); replace or remove it") from None

    def digest(self) -> str:
        """A hash of the names and sizes of all files, which tells most changes of a set without reading a million images."""
        digest = hashlib.sha256()
        for file in self.files:
            digest.update(f"{file.relative_to(self.folder)}\0{file.stat().st_size}\n".encode())
        return digest.hexdigest()


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
