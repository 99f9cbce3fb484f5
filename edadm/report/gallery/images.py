"""Images of every variant for the same noises, with maps of their errors, as PNGs inside the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8
from matplotlib import colormaps
from PIL import Image

from edadm.artifacts import reading
from edadm.report.results.files import AGAIN
from edadm.report.strips import data_uri

MOST, FEWEST = 16, 4  # noises shown
LARGEST, SMALLEST = 256, 64  # pixels of an image's longer side: shown at most, and not reduced below
BUDGET = 6 * 10**6  # bytes of all pixels of a page before compression
LEVELS = (1, 2, 4, 8, 16, 32, 64)  # grey levels at which a map's colour changes
COLORS = [
    tuple(round(255 * part) for part in colormaps["magma"](share)[:3])
    for share in np.linspace(0, 0.97, len(LEVELS) + 1)
]


@dataclass(frozen=True)
class Picture:
    """An image of a variant as an address, and, where full precision's is known, how far it is from it."""

    uri: str
    heat: str = ""  # the address of the map of its error
    mean: float | None = None  # absolute error in grey levels
    psnr: float | None = None  # in dB; infinite for equal images


@dataclass(frozen=True)
class Chosen:
    """Which noises are shown, of how many, and by how much their images are reduced."""

    indices: list[int]
    images: int
    reduced: int


def chosen(images: int, size: tuple[int, int], variants: int, budget: float = BUDGET) -> Chosen:
    """Noises spread evenly over all images; fewer, and then smaller ones, where a page would be too large.

    Args:
        images: of each variant.
        size: height and width.
        variants: how many show each noise.
        budget: bytes of pixels that they may have together.
    """
    reduced = max(1, math.ceil(max(size) / LARGEST))
    while (max(size) // (reduced + 1) >= SMALLEST) and FEWEST * variants * _bytes(size, reduced) > budget:
        reduced += 1
    count = min(images, MOST, max(FEWEST, int(budget / (variants * _bytes(size, reduced)))))
    return Chosen([index * images // count for index in range(count)], images, reduced)


def _bytes(size: tuple[int, int], reduced: int) -> int:
    return 3 * (size[0] // reduced) * (size[1] // reduced)


def images_at(files: Sequence[Path], indices: Sequence[int]) -> UInt8[np.ndarray, "n 3 h w"]:
    """Some of the images that lie in several files, in order; no others are read.

    Raises:
        EdadmError: a file cannot be read.
    """
    found, start, left = [], 0, list(indices)
    for file in files:
        with reading(file, AGAIN, what="images"):
            stack = np.load(file, mmap_mode="r", allow_pickle=False)
            here = [index for index in left if index < start + len(stack)]
            found += [np.array(stack[index - start]) for index in here]
        left, start = left[len(here) :], start + len(stack)
    return np.stack(found)


def count_images(files: Sequence[Path]) -> int:
    """How many images lie in files, of which only the heads are read.

    Raises:
        EdadmError: a file cannot be read.
    """
    total = 0
    for file in files:
        with reading(file, AGAIN, what="images"):
            total += len(np.load(file, mmap_mode="r", allow_pickle=False))
    return total


def pictures(
    images: UInt8[np.ndarray, "n 3 h w"], references: UInt8[np.ndarray, "n 3 h w"] | None, reduced: int
) -> list[Picture]:
    """Images, and their errors to those of the same noise if these are known, found at full size."""
    if references is None:
        return [Picture(data_uri(_tile(image, reduced))) for image in images]
    shown = []
    for image, reference in zip(images, references, strict=True):
        error = image.astype(np.float64) - reference
        square = float(np.square(error).mean())
        psnr = 10 * math.log10(255**2 / square) if square else math.inf
        heat = data_uri(heat_map(np.abs(error).mean(0), reduced))
        shown.append(Picture(data_uri(_tile(image, reduced)), heat, float(np.abs(error).mean()), psnr))
    return shown


def heat_map(error: Float[np.ndarray, "h w"], reduced: int = 1) -> Image.Image:
    """Absolute errors in grey levels as colours, a band for each doubling; means of blocks if reduced."""
    if reduced > 1:
        error = np.asarray(Image.fromarray(error.astype(np.float32)).reduce(reduced))
    bands = Image.fromarray(np.digitize(error, LEVELS).astype(np.uint8)).convert("P")
    bands.putpalette([part for color in COLORS for part in color])
    return bands


def legend() -> list[dict[str, str]]:
    """The colours of maps of errors and the grey levels that each stands for."""
    words = [
        f"below {LEVELS[0]}",
        *(f"{low} to {high}" for low, high in pairwise(LEVELS)),
        f"{LEVELS[-1]} and more",
    ]
    return [
        {"color": "#{:02x}{:02x}{:02x}".format(*color), "words": text}
        for color, text in zip(COLORS, words, strict=True)
    ]


def _tile(image: UInt8[np.ndarray, "3 h w"], reduced: int) -> Image.Image:
    whole = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    return whole.reduce(reduced) if reduced > 1 else whole
