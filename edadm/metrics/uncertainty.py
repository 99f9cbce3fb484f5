"""How much of a score is chance: pseudo-values, floors, and scores freed of what few images add."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from edadm.config.inputs.statistics import LAYERS
from edadm.metrics.noted import noted
from edadm.metrics.references import Reference
from edadm.metrics.scores.floor import floor
from edadm.metrics.scores.jackknife import (
    frechet_groups,
    groups_of,
    of_frechet_distance,
    of_inception_score,
    of_kernel_distance,
    of_mean,
)

LEAST = 8  # images that groups can be left out of
MOST_OF_KERNELS = 10_000  # images whose pairs are all looked at in seconds
FREED = 5000  # images from which on a distance is linear in 1 / n
WORST = 0.05  # share of the images
_DISTANCES = ("fid", "sfid")


def resamples(
    scores: Mapping[str, Any],
    features: Mapping[str, Tensor],
    reference: Reference | None,
    per_image: Mapping[str, Float[Tensor, " n"]],
) -> dict[str, list[float]]:
    """Pseudo-values of every score among `scores` that has an interval (see `scores.jackknife`).

    Args:
        scores: that were computed.
        features: of the images by layer.
        reference: real images, for distances.
        per_image: numbers of which a score is the mean.
    """
    images = len(next(iter((*features.values(), *per_image.values())), ()))
    if images < LEAST:
        return {}
    found = {name: of_mean(values, groups_of(images)) for name, values in per_image.items()}
    if reference is not None:
        for score in filter(scores.__contains__, _DISTANCES):
            rows, real = features[LAYERS[score]], reference.layers[LAYERS[score]]
            groups = frechet_groups(*rows.shape)
            found[score] = of_frechet_distance(rows, real["mu"], real["sigma"], groups)
    if "inception_score" in scores:
        found["inception_score"] = of_inception_score(features["logits"], groups_of(images))
    if "kid" in scores and reference is not None and images <= MOST_OF_KERNELS:
        assert reference.features is not None
        found["kid"] = of_kernel_distance(features["pooled"], reference.features, groups_of(images))
    return {name: values.tolist() for name, values in found.items()}


def freed_of_size(
    resampled: Mapping[str, list[float]], images: int, features: Mapping[str, Tensor]
) -> dict[str, float]:
    """FID as it would be of endlessly many images: the mean of its pseudo-values.

    The bias that is linear in 1 / n drops out, as in the fits over subsets of arXiv 1911.07023, but without
    drawing any. Below 5,000 images, or twice as many as features, the bias is not linear, and this misleads.
    """
    if "fid" not in resampled or images < max(FREED, 2 * features["pooled"].shape[1]):
        return {}
    return {"fid_infinity": float(torch.tensor(resampled["fid"], dtype=torch.float64).mean())}


def floors(scores: Mapping[str, Any], images: int, reference: Reference | None) -> dict[str, Any]:
    """What as many real images score, by score; computed once in a run of the workflow for all variants."""
    if reference is None or images < LEAST:
        return {}
    return {
        score: noted(
            ["floor", reference.facts["sha256"], score, images, torch.get_num_threads()],
            partial(_floor, reference, LAYERS[score], images),
        )
        for score in _DISTANCES
        if score in scores
    }


def _floor(reference: Reference, layer: str, images: int) -> dict[str, Any]:
    kept, others = (reference.features, reference.held_out) if layer == "pooled" else (None, None)
    return asdict(floor(reference.layers[layer], images, kept, reference.facts["images"], others))


def psnr_scores(decibels: Float[Tensor, " n"]) -> dict[str, float]:
    """The mean of PSNR, that of the worst 5 % of images, and PSNR of the mean error of all.

    The mean of decibels is governed by images that are nearly equal, the mean error by the worst.
    """
    errors = 255**2 / 10 ** (decibels.double() / 10)
    worst = decibels.sort().values[: max(1, round(WORST * len(decibels)))]
    return {
        "psnr": decibels.mean().item(),
        "psnr_worst": worst.mean().item(),
        "psnr_of_mean_error": (10 * torch.log10(255**2 / errors.mean())).item(),
    }
