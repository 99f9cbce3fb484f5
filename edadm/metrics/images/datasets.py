"""Images to score, one at a time from files, so that fifty thousand of them need not fit into memory."""

from __future__ import annotations

import bisect
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from edadm.config.inputs.statistics import Crop
from edadm.errors import EdadmError
from edadm.metrics.images.arrays import stack
from edadm.metrics.images.pictures import cropped


@runtime_checkable
class Images(Protocol):
    """Images by index; a uint8 tensor (n, 3, h, w) is one too."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> UInt8[Tensor, "3 h w"]: ...


class StackedImages:
    """Images in arrays (n, 3, h, w), read when asked for; their names are their numbers.

    Args:
        shards: the arrays in order.
        place: where they lie, in words.

    Raises:
        EdadmError: all are empty, or they are not of one size.
    """

    def __init__(self, shards: Sequence[UInt8[np.ndarray, "_ 3 _ _"]], place: str):
        self.shards, self.place = shards, place
        self.ends = list(accumulate(len(shard) for shard in shards))
        if not self.ends or self.ends[-1] == 0:
            raise EdadmError(f"{place or 'no file'} holds no images; generate them again")
        sizes = dict.fromkeys(shard.shape[2:] for shard in shards if len(shard))
        if len(sizes) > 1:
            shown = " and ".join(f"{width} x {height}" for height, width in list(sizes)[:2])
            raise EdadmError(f"{place} hold images of several sizes ({shown}); give files of one size")
        self.size: tuple[int, int] = next(iter(sizes))

    @property
    def names(self) -> list[str]:
        """Numbers, from 0."""
        return [str(number) for number in range(len(self))]

    def __len__(self) -> int:
        return self.ends[-1]

    def __getitem__(self, index: int) -> UInt8[Tensor, "3 h w"]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = bisect.bisect_right(self.ends, index)
        start = self.ends[shard - 1] if shard else 0
        return torch.from_numpy(np.array(self.shards[shard][index - start], order="C"))

    def remarks(self) -> list[str]:
        """Nothing is left out of arrays."""
        return []


class ShardedImages(StackedImages):
    """Images in the `.npy` and `.npz` files of all shards.

    Raises:
        EdadmError: a file holds anything but images (see `edadm.metrics.images.arrays`); all are empty.
    """

    def __init__(self, files: Sequence[Path]):
        self.files = files
        super().__init__([stack(file) for file in files], ", ".join(map(str, files)))


class SomeImages:
    """Some of other images, by their numbers among these."""

    def __init__(self, images: Images, rows: Sequence[int]):
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> UInt8[Tensor, "3 h w"]:
        return self.images[self.rows[index]]


class PreparedImages:
    """Other images, each as `prepare` makes it."""

    def __init__(self, images: Images, resolution: int, crop: Crop = "square"):
        self.images, self.resolution, self.crop = images, resolution, crop

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> UInt8[Tensor, "3 h w"]:
        return prepare(self.images[index], self.resolution, self.crop)


def prepare(
    pixels: UInt8[Tensor, "3 _ _"], resolution: int | None, crop: Crop = "square"
) -> UInt8[Tensor, "3 h w"]:
    """An image as it is scored: at `resolution` by `cropped`, or as it is if that is None."""
    if resolution is None or pixels.shape[1:] == (resolution, resolution):
        return pixels
    seen = cropped(Image.fromarray(pixels.permute(1, 2, 0).numpy()), resolution, crop)
    return torch.from_numpy(np.array(seen)).permute(2, 0, 1).contiguous()


def prepared(images: Images, resolution: int | None, crop: Crop = "square") -> Images:
    """The images as they are scored, each prepared when it is asked for."""
    return images if resolution is None else PreparedImages(images, resolution, crop)


def in_blocks(
    total: int, size: int, load: Callable[[int], dict[str, Tensor]]
) -> Iterator[dict[str, UInt8[Tensor, "n ..."]]]:
    """What is loaded of each image, stacked by name for `size` images after the other.

    Every image is loaded once, by as many threads as torch has beside the one that computes, a block ahead.

    Raises:
        EdadmError: images of a block are not of one size.
    """
    blocks = [range(start, min(start + size, total)) for start in range(0, total, size)]
    threads = torch.get_num_threads() - 1
    if threads < 1:
        yield from (_stacked(block, map(load, block)) for block in blocks)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque(pool.map(load, block) for block in blocks[:1])
        for block, following in zip(blocks, [*blocks[1:], range(0)], strict=True):
            waiting.append(pool.map(load, following))
            yield _stacked(block, waiting.popleft())


def _stacked(block: range, loaded: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
    rows = list(loaded)
    for name, first in rows[0].items():
        for index, row in zip(block, rows, strict=True):
            if row[name].shape != first.shape:
                size, wanted = (" x ".join(map(str, of.shape[1:])) for of in (row[name], first))
                raise EdadmError(
                    f"image {index} has {size} pixels, not {wanted}; set `resolution` to bring all images to "
                    "one size"
                )
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
