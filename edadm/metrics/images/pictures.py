"""Files of pictures: what is looked at before they are scored, and as which pixels they are seen."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image

from edadm.artifacts import reading

ORIENTATION = 0x112
_WITH_EXIF = frozenset({"JPEG", "MPO", "WEBP", "TIFF"})
_PLAIN = frozenset({"RGB", "L", "1", "P", "CMYK", "YCbCr"})
_WITH_ALPHA = frozenset({"RGBA", "LA", "PA"})
_GREY_16 = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})


@contextmanager
def opened(file: Path) -> Iterator[Image.Image]:
    """A picture that is to be scored.

    Raises:
        DamagedError: it cannot be read, or what the block raises of it.
    """
    with reading(file, "replace or remove it", what="an image to score"):
        try:
            image = Image.open(file)
        except Image.UnidentifiedImageError:
            raise ValueError("it is no image") from None
        with image:
            yield image


def look(file: Path) -> tuple[tuple[int, int], bool]:
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


def _ends_well(file: Path, form: str | None) -> bool:
    """Whether a file is complete by the look of its end; False says that only decoding tells."""
    with open(file, "rb") as stored:
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
