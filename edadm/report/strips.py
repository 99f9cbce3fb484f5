"""The same seeds from every variant, as strips of images inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from edadm.report.results.records import VariantResult

GAIN = 4
LARGEST_TILE = 128
WIDTH = 1056  # CSS pixels of the page's widest column


@dataclass(frozen=True)
class Strip:
    """A row of images as a data URI, and the CSS pixels it is shown at."""

    label: str
    note: str
    uri: str
    width: int
    height: int
    is_difference: bool


def strips_of(variants: Sequence[VariantResult]) -> list[Strip]:
    """A strip of images per variant, and below each quantized one its difference to full precision.

    The latter only if full precision is among them.
    """
    reference = next((result for result in variants if not result.is_quantized), None)
    strips = []
    for result in variants:
        decibel = result.scores["psnr"]
        strips.append(
            _strip(result.images, result.label, "" if decibel is None else f"PSNR {decibel:.1f} dB", False)
        )
        if reference and result.is_quantized:
            strips.append(_strip(difference(result.images, reference.images), "difference", f"×{GAIN}", True))
    return strips


def difference(images: np.ndarray, references: np.ndarray, gain: int = GAIN) -> np.ndarray:
    """Differences of two uint8 arrays, `gain` times as large, around mid-grey (128), saturating."""
    return np.clip(128 + gain * (images.astype(np.int32) - references.astype(np.int32)), 0, 255).astype(
        np.uint8
    )


def _strip(images: np.ndarray, label: str, note: str, is_difference: bool) -> Strip:
    tiles = list(_tiles(images))
    size = tiles[0].width
    gap = max(1, size // 32)
    columns = len(tiles)
    # Large images are shown in fewer columns, so that the strip keeps to the page.
    while columns > 4 and columns * (size + gap) > WIDTH:
        columns //= 2
    canvas = Image.new("RGBA", (columns * (size + gap) - gap, tiles[0].height))
    for column, tile in enumerate(tiles[:columns]):
        canvas.paste(tile, (column * (size + gap), 0))
    scale = max(1, WIDTH // canvas.width)
    return Strip(label, note, data_uri(canvas), canvas.width * scale, canvas.height * scale, is_difference)


def _tiles(images: np.ndarray) -> Iterator[Image.Image]:
    """Images (n, 3, h, w) at their own size, or averaged down to `LARGEST_TILE`."""
    for image in images:
        tile = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
        reduced = max(1, tile.width // LARGEST_TILE)
        yield tile.reduce(reduced) if reduced > 1 else tile


def data_uri(image: Image.Image) -> str:
    """The image as PNG inside an address."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
