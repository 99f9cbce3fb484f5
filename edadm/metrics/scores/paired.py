"""Images against others of the same noise, a block at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from edadm.config.sharding.scored import BATCH
from edadm.errors import EdadmError
from edadm.metrics.images.datasets import Images, in_blocks
from edadm.metrics.scores.psnr import psnr

Measure = Callable[[Tensor, Tensor], Tensor]
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


def of_pairs(
    images: UInt8[Tensor, "n c h w"], references: UInt8[Tensor, "n c h w"], measure: Measure
) -> Float[Tensor, " n"]:
    """A measure of each image beside its reference, so many at once as memory allows."""
    at_once = max(1, PIXELS // images[0, 0].numel())
    pairs = zip(images.split(at_once), references.split(at_once), strict=True)
    return torch.cat([measure(*pair) for pair in pairs])


def parity_rows(images: Images, simulated: Images, references: Images) -> dict[str, Float[Tensor, " n"]]:
    """What `parity` takes: every image made with integers beside the simulated and the full-precision one.

    Raises:
        EdadmError: different numbers of images.
    """
    refuse_other_numbers(images, simulated, references)

    def load(index: int) -> dict[str, Tensor]:
        return {"own": images[index], "other": simulated[index], "full": references[index]}

    found = [parity_of(**block) for block in in_blocks(len(images), BATCH, load)]
    return {name: torch.cat([rows[name] for rows in found]) for name in _ROWS}


def parity_of(
    own: UInt8[Tensor, "n c h w"], other: UInt8[Tensor, "n c h w"], full: UInt8[Tensor, "n c h w"]
) -> dict[str, Float[Tensor, " n"]]:
    """What `parity` takes of some images."""
    rows = psnr(own, other), _differences(own, other), _differences(other, full)
    return dict(zip(_ROWS, rows, strict=True))


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


def refuse_other_numbers(images: Images, *others: Images) -> None:
    """Refuses sets that hold more or fewer images.

    Raises:
        EdadmError: says how many each has.
    """
    for other in others:
        if len(images) != len(other):
            raise EdadmError(
                f"{len(images)} images cannot be compared with {len(other)} of the same noise; generate as "
                "many of both"
            )
