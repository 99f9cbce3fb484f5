"""What real images score against real images: below that no number of a model means anything.

A set of n images lies at a distance from its own distribution that is not 0, since n images do not know their
covariance. Where the reference has features of images that it is not of, sets of n of these are taken; where
it kept features of its own, n of them are held out from it; where it did neither, as many features are drawn
from a Gaussian of its mean and covariance, which lies somewhat lower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edadm.calibration.allocate import keyed_generator
from edadm.metrics.scores.frechet import Statistics, frechet_distance, statistics

DRAWS = 20
DRAWS_OF_LARGE = 3  # where a distance takes seconds
LARGE = 512  # features


@dataclass(frozen=True)
class Floor:
    """The distance of a set of real images to the others.

    Attributes:
        mean: over several sets.
        spread: standard deviation of one; None for a single set.
        held_out: whether they were images; else draws from a Gaussian.
    """

    mean: float
    spread: float | None
    held_out: bool


def floor(
    reference: Statistics,
    images: int,
    kept: Float[Tensor, "k d"] | None,
    known: int | None,
    others: Float[Tensor, "m d"] | None = None,
) -> Floor:
    """The floor of a Frechet distance for so many images.

    Args:
        reference: mean and covariance of real images.
        images: in a set.
        kept: features of some of these real images.
        known: how many the reference is of, if it says so.
        others: features of real images that it is not of; they come before those that it kept.
    """
    most = DRAWS if len(reference["mu"]) <= LARGE else DRAWS_OF_LARGE
    if others is not None and images <= len(others):
        values, held_out = _of_others(reference, images, others.double(), most), True
    elif kept is not None and known is not None and images <= len(kept) and known - images > len(kept.T):
        values, held_out = _held_out(reference, images, kept.double(), known, most), True
    else:
        values, held_out = _drawn(reference, images, most), False
    return Floor(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None, held_out)


def _held_out(
    reference: Statistics, images: int, kept: Float[Tensor, "k d"], known: int, most: int
) -> list[float]:
    """Distances of disjoint sets, each to all other images of the reference."""
    sets = _sets(kept, images)[:most]
    return [frechet_distance(statistics(rows), _without(reference, known, rows)) for rows in sets]


def _of_others(reference: Statistics, images: int, others: Float[Tensor, "m d"], most: int) -> list[float]:
    """Distances of disjoint sets of images that the reference is not of."""
    return [frechet_distance(statistics(rows), reference) for rows in _sets(others, images)[:most]]


def _sets(rows: Float[Tensor, "k d"], images: int) -> list[Float[Tensor, "n d"]]:
    """Disjoint sets of rows, drawn without regard to their order."""
    order = torch.from_numpy(keyed_generator(images, "floor").permutation(len(rows)))
    return [rows[order[start : start + images]] for start in range(0, len(rows) - images + 1, images)]


def _without(reference: Statistics, known: int, rows: Float[Tensor, "n d"]) -> Statistics:
    """Statistics of a set without some of its rows."""
    centred, left = rows.numpy() - reference["mu"], known - len(rows)
    shift = -centred.sum(0) / left
    products = (known - 1) * reference["sigma"] - centred.T @ centred - left * np.outer(shift, shift)
    return {"mu": reference["mu"] + shift, "sigma": products / (left - 1)}


def _drawn(reference: Statistics, images: int, draws: int) -> list[float]:
    """Distances of sets of draws from the reference's Gaussian.

    Their covariance is drawn itself, from Wishart's distribution by its triangular factor (Bartlett 1933).
    """
    sigma = reference["sigma"]
    values, vectors = np.linalg.eigh(sigma)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    found = []
    for draw in range(draws):
        random = keyed_generator(images, "floor", draw)
        factor = _wishart_factor(len(sigma), images - 1, random)
        shift = root @ random.standard_normal(len(sigma)) / images**0.5
        spread = np.square(root @ factor).sum() / (images - 1)
        shared = torch.linalg.svdvals(torch.from_numpy(sigma @ factor)).sum().item() / (images - 1) ** 0.5
        found.append(float(shift @ shift + spread + np.trace(sigma) - 2 * shared))
    return found


def _wishart_factor(size: int, degrees: int, random: np.random.Generator) -> Float[np.ndarray, "d _"]:
    """A whose products A A' are distributed as those of `degrees` standard normal vectors."""
    if degrees < size:
        return random.standard_normal((size, degrees))
    factor = np.tril(random.standard_normal((size, size)), -1)
    factor[np.diag_indices(size)] = np.sqrt(random.chisquare(degrees - np.arange(size)))
    return factor
