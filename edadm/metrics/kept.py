"""Features of single real images beside statistics that are there, so that these keep their numbers."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float16
from torch import Tensor

from edadm.config.schema import Extractor
from edadm.errors import EdadmError
from edadm.metrics.extractors.extract import Advance, extract_features
from edadm.metrics.images.datasets import Images, SomeImages
from edadm.metrics.scores.frechet import load_statistics, save_statistics


def write_kept(
    output: Path,
    known: Path,
    images: Images,
    held_out: Images,
    extractor: Extractor,
    weights: Path | None,
    keep: int,
    advance: Advance = lambda images: None,
    device: torch.device | str = "cpu",
) -> None:
    """Writes statistics again with pooled features of some of their images, and of images they are not of.

    Both are evenly spread over their sets, and kept in half precision.

    Args:
        known: the statistics, whose numbers are taken as they are.
        images: that they are of.
        held_out: others of the same distribution, for floors.
        extractor, weights: the network that made them.
        keep: of so many of either.
        advance: told the number of images after each batch.
        device: where features are computed.

    Raises:
        EdadmError: the statistics are of another network, or of more or fewer images.
    """
    layers, facts = load_statistics(known)
    if facts.get("extractor") != extractor or facts.get("images") != len(images):
        raise EdadmError(
            f"{known} is of {facts.get('images')} images by '{facts.get('extractor')}', here are "
            f"{len(images)} for '{extractor}'; name the images and the network that it was made of"
        )

    def pooled(of: Images) -> Float16[Tensor, "k d"]:
        some = SomeImages(of, torch.linspace(0, len(of) - 1, min(keep, len(of))).round().long().tolist())
        found = extract_features(some, extractor, 64, weights, ("pooled",), advance, device)
        return found["pooled"].half()

    told = {name: fact for name, fact in facts.items() if name != "sha256"}
    save_statistics(output, layers, told, pooled(images).numpy(), pooled(held_out).numpy())
