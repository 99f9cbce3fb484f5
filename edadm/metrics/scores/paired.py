"""Images against others of the same noise, a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from edadm.config.sharding.scored import BATCH
from edadm.errors import EdadmError
from edadm.metrics.images.datasets import Images
from edadm.metrics.scores.psnr import psnr

Measure = Callable[[Tensor, Tensor], Tensor]
BLOCK = BATCH  # so that parts of all images have the blocks of all
PIXELS = 2**20  # of images that a measure sees at once
_ROWS = ("parity_psnr", "parity_difference", "parity_bound")


@dataclass(frozen=True)
class Parity:
    """How far images made with integers are from those of the simulated network.

    Attributes:
        psnr: to the simulated images, mean over all in dB.
        difference: mean absolute difference to them, in grey levels.
        bound: that of the simulated images to full precision, which `difference` must not exceed.
        worst: the largest `difference / bound` of a single image; a bound below one grey level in one value
            counts as that.
    """

    psnr: float
    difference: float
    bound: float
    worst: float

    @property
    def holds(self) -> bool:
        """Whether integers are nearer to simulation than simulation is to full precision."""
        return self.difference <= self.bound


def of_pairs(images: Images, references: Images, measure: Measure) -> Float[Tensor, " n"]:
    """A measure of each image beside its reference.

    Raises:
        EdadmError: different numbers of images.
    """
    found = []
    for block in _blocks(images, references):
        at_once = max(1, PIXELS // block[0][0, 0].numel())
        found += [measure(*pair) for pair in zip(*(each.split(at_once) for each in block), strict=True)]
    return torch.cat(found)


def parity_rows(images: Images, simulated: Images, references: Images) -> dict[str, Float[Tensor, " n"]]:
    """What `parity` takes: every image made with integers beside the simulated and the full-precision one.

    Raises:
        EdadmError: different numbers of images.
    """
    decibel, apart, bound = [], [], []
    for own, other, full in _blocks(images, simulated, references):
        decibel.append(psnr(own, other))
        apart.append(_differences(own, other))
        bound.append(_differences(other, full))
    found = zip(_ROWS, (decibel, apart, bound), strict=True)
    return {name: torch.cat(values) for name, values in found}


def parity(rows: Mapping[str, Float[Tensor, "n ..."]], values: int) -> Parity | None:
    """All images made with integers beside others, if `rows` say so.

    Args:
        rows: from `parity_rows`, and others.
        values: in an image.
    """
    if not rows.keys() >= set(_ROWS):
        return None
    decibel, difference, allowed = (rows[name] for name in _ROWS)
    worst = (difference / allowed.clamp(min=1 / values)).max().item()
    return Parity(decibel.mean().item(), difference.mean().item(), allowed.mean().item(), worst)


def _differences(one: UInt8[Tensor, "n c h w"], other: UInt8[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
    return (one.float() - other.float()).abs().flatten(1).mean(1)


def _blocks(images: Images, *others: Images) -> Iterator[list[UInt8[Tensor, "n c h w"]]]:
    for other in others:
        if len(images) != len(other):
            raise EdadmError(
                f"{len(images)} images cannot be compared with {len(other)} of the same noise; generate as "
                "many of both"
            )
    for start in range(0, len(images), BLOCK):
        block = range(start, min(start + BLOCK, len(images)))
        yield [torch.stack([each[index] for index in block]) for each in (images, *others)]
