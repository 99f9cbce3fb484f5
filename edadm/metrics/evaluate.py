"""All scores of a set of images, each with the conditions it holds under."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, isc_features_to_metric
from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

from edadm.errors import EdadmError
from edadm.metrics import features
from edadm.metrics.frechet import frechet_distance, load_statistics, statistics
from edadm.metrics.psnr import psnr

SMALLEST_SPLIT = 500


def extract_features(images: UInt8[Tensor, "n 3 h w"], extractor: str, batch_size: int = 256) -> dict[str, Tensor]:
    """Features (n, d) of every layer of a registered torch-fidelity extractor, fp32, on the CPU."""
    features.register()
    network = create_feature_extractor(extractor, list(features.LAYERS), cuda=torch.cuda.is_available(), verbose=False)
    dataset = _Images(images)
    return get_featuresdict_from_dataset(dataset, network, batch_size, torch.cuda.is_available(), save_cpu_ram=True, verbose=False)


class _Images(torch.utils.data.Dataset):
    """A tensor of images as torch-fidelity wants them."""

    def __init__(self, images: UInt8[Tensor, "n 3 h w"]):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> UInt8[Tensor, "3 h w"]:
        return self.images[index]


def evaluate(
    images: UInt8[Tensor, "n 3 h w"], references: UInt8[Tensor, "n 3 h w"] | None, extractor: str, statistics_file: Path
) -> dict[str, Any]:
    """FID, sFID and IS of `images`, and their PSNR to `references`, the full-precision images of the same noise.

    Raises:
        EdadmError: the reference statistics are of another extractor.
    """
    reference, facts = load_statistics(statistics_file)
    if facts["extractor"] != extractor:
        raise EdadmError(
            f"{statistics_file} holds features of '{facts['extractor']}', the images are scored by '{extractor}'; use one for both"
        )
    layers = extract_features(images, extractor)
    splits = 10 if len(images) >= 10 * SMALLEST_SPLIT else 1
    scores: dict[str, Any] = {
        "fid": frechet_distance(statistics(layers["pooled"]), reference["pooled"]),
        "sfid": frechet_distance(statistics(layers["spatial"]), reference["spatial"]),
        "inception_score": isc_features_to_metric(layers["logits"], splits=splits)[KEY_METRIC_ISC_MEAN],
        "psnr": None if references is None else psnr(images, references).mean().item(),
    }
    conditions = {
        "images": len(images),
        "extractor": extractor,
        "inception_score_splits": splits,
        "reference_images": facts["images"],
        "reference_set": facts["set"],
        "reference_sha256": facts["sha256"],
    }
    return scores | {"conditions": conditions}
