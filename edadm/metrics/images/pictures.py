"""Files of pictures: what is looked at before they are scored, and as which pixels they are seen."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from edadm.artifacts import reading
from edadm.config.inputs.statistics import Crop

ORIENTATION = 0x112
_WITH_EXIF = frozenset({"JPEG", "MPO", "WEBP", "TIFF"})
_PLAIN = frozenset({"RGB", "L", "1", "P", "CMYK", "YCbCr"})
_WITH_ALPHA = frozenset({"RGBA", "LA", "PA"})
_GREY_16 = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})


@runtime_checkable
class Stored(Protocol):
    """A picture's file, wherever it lies; a path is one, and says by its text where."""

    def open(self, mode: Literal["rb"], /) -> BinaryIO:
        """Its bytes."""


@contextmanager
def opened(file: Stored) -> Iterator[Image.Image]:
    """A picture that is to be scored.

    Raises:
        DamagedError: it cannot be read, or what the block raises of it.
    """
    place = Path(str(file))
    with reading(place, "replace or remove it", what="an image to score"), file.open("rb") as stored:
        try:
            image = Image.open(stored)
        except Image.UnidentifiedImageError:
            raise ValueError("it is no image") from None
        with image:
            yield image


def look(file: Stored) -> tuple[tuple[int, int], bool]:
    """The size of an image, and whether EXIF says that it is to be rotated.

    Decodes it only where its end looks wrong.

    Raises:
        DamagedError: it cannot be scored.
    """
    with opened(file) as image:
        _refuse(image)
        rotated = image.format in _WITH_EXIF and _orientation(image) not in (0, 1)
        if not _ends_well(file, image.format):
            image.load()
        size, form = image.size, image.format
    if form == "PNG":
        with opened(file) as image:
            image.verify()  # the checksum of every chunk
    return size, rotated


def _orientation(image: Image.Image) -> int:
    with warnings.catch_warnings(action="ignore"):
        with suppress(Exception):  # Pillow raises many kinds; a picture without this is whole
            return image.getexif().get(ORIENTATION, 1)
        return 1


def _refuse(image: Image.Image) -> None:
    """Images without one meaning: animations, transparency, numbers without a known range.

    Raises:
        ValueError: says which.
    """
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # a camera's picture with its preview
        raise ValueError(f"it holds {frames} frames, of which one would have to be chosen")
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        lowest = image.convert("RGBA").getchannel("A").getextrema()[0]
        if lowest != 255:
            raise ValueError(
                "some of its pixels are transparent, whose colour depends on what lies behind them"
            )
    elif image.mode not in _PLAIN | _GREY_16:
        raise ValueError(
            f"its pixels are of the kind '{image.mode}', whose range is not known; save it with 8 or 16 bits"
        )


def _ends_well(file: Stored, form: str | None) -> bool:
    """Whether a file is complete by the look of its end; False says that only decoding tells."""
    with file.open("rb") as stored:
        head = stored.read(12)
        size = stored.seek(0, 2)
        stored.seek(max(0, size - 12))
        tail = stored.read()
    if form == "PNG":
        return tail[4:8] == b"IEND"
    if form in ("JPEG", "MPO"):
        return tail.endswith(b"\xff\xd9")
    return form == "WEBP" and int.from_bytes(head[4:8], "little") + 8 == size


def rgb(image: Image.Image) -> Image.Image:
    """An opened picture as it is scored.

    Raises:
        ValueError, or what Pillow raises: it cannot be.
    """
    _refuse(image)
    if image.mode in _GREY_16:
        values = np.asarray(image).astype(np.float64)
        return Image.fromarray(np.round(values / 257).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def cropped(image: Image.Image, side: int, crop: Crop = "square") -> Image.Image:
    """A picture at `side` pixels, as published runs prepare real images; FID depends on it.

    square: the largest centred square, resized with Pillow's bicubic filter, as the LSUN loader of latent
    diffusion does (method, 5.3). adm: halved by averaging while the shorter side is twice as long or more,
    then resized bicubically, then cut to the centre, as guided-diffusion's loader of ImageNet does
    (guided_diffusion/image_datasets.py). box: resized with Pillow's box filter, then cut to the centre, as
    that project writes LSUN (datasets/lsun_bedroom.py).
    """
    if crop == "square":
        return _centre_square(image, side)
    kernel = Image.Resampling.BOX
    if crop == "adm":
        kernel = Image.Resampling.BICUBIC
        while min(image.size) >= 2 * side:
            image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = side / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), kernel)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _centre_square(image: Image.Image, side: int) -> Image.Image:
    width, height = image.size
    shorter = min(width, height)
    left, top = (width - shorter) // 2, (height - shorter) // 2
    square = image.crop((left, top, left + shorter, top + shorter))
    return square if shorter == side else square.resize((side, side), Image.Resampling.BICUBIC)
