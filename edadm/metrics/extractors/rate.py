"""The network of a preset's scores by itself, for whoever wants to know how long an image takes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import UInt8
from torch import Tensor

from edadm.config.files.scoring import scoring
from edadm.config.schema import Evaluation
from edadm.errors import EdadmError
from edadm.metrics.extractors.extract import build_extractor, feature_batches
from edadm.metrics.images.datasets import prepared


def feature_network(
    evaluation: Evaluation, device: torch.device | str = "cpu"
) -> Callable[[UInt8[Tensor, "n 3 h w"]], None] | None:
    """Prepares images and computes the features that scores need, as `evaluate` does.

    None where a file is absent.

    A CLIP score's network is not in it.
    """
    try:
        files = scoring(evaluation, prompts_follow=True)
    except EdadmError:
        return None
    network = build_extractor(files.extractor, files.weights, ("pooled",))

    def extract(images: UInt8[Tensor, "n 3 h w"]) -> None:
        seen = prepared(images, files.resolution, files.crop)
        for _ in feature_batches(seen, network, len(images), device=device):
            pass

    return extract
