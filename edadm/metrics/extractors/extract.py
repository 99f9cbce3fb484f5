"""From images to features, by any of the extractors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from edadm.config.schema import Extractor
from edadm.config.sharding.scored import BATCH
from edadm.errors import EdadmError
from edadm.metrics.extractors.cifar import LAYERS, NAME, SIDE, CifarFeatureExtractor
from edadm.metrics.images.datasets import Images, in_blocks

Advance = Callable[[int], None]


def build_extractor(
    extractor: Extractor, weights: Path | None, layers: tuple[str, ...] = LAYERS
) -> FeatureExtractorBase:
    """A network that gives `layers` (among pooled, spatial, logits) of uint8 images.

    Raises:
        EdadmError: weights that the network cannot use, or a layer it does not have.
    """
    if extractor == NAME:
        return CifarFeatureExtractor(NAME, list(layers), None if weights is None else str(weights))
    if weights is None:
        raise EdadmError(f"extractor '{extractor}' needs a file with its weights; see `edadm download`")
    if extractor in ("dinov2", "clip"):
        from edadm.metrics.extractors import vision  # timm and open_clip take a while to import

        return vision.dinov2(weights) if extractor == "dinov2" else vision.clip(weights)
    from edadm.metrics.extractors.inception import (
        PytorchFidInception,
        TorchFidelityInception,
    )  # torchvision takes a while to import

    return {"inception": TorchFidelityInception, "pytorch_fid": PytorchFidInception}[extractor](
        weights, layers
    )


def features_of(
    network: FeatureExtractorBase, images: UInt8[Tensor, "n 3 h w"], device: torch.device
) -> dict[str, Float[Tensor, "n _"]]:
    """Features of images by layer, fp32, on the CPU; `device` has the network.

    Raises:
        EdadmError: images that are not 32 x 32 for the bundled classifier, which has that size only.
    """
    if isinstance(network, CifarFeatureExtractor) and images.shape[2:] != (SIDE, SIDE):
        size = " x ".join(map(str, images.shape[2:]))
        raise EdadmError(
            f"images have {size} pixels, and the bundled classifier sees {SIDE} x {SIDE}; set `resolution` "
            f"to {SIDE}, or another `extractor`"
        )
    with torch.no_grad():
        found = network(images.to(device))
    return {layer: values.float().cpu() for layer, values in zip(network.features_list, found, strict=True)}


def feature_batches(
    images: Images,
    network: FeatureExtractorBase,
    batch_size: int,
    advance: Advance = lambda images: None,
    device: torch.device | str = "cpu",
) -> Iterator[dict[str, Float[Tensor, "n _"]]]:
    """Features of one batch after the other by layer, on the CPU; `device` computes them.

    Raises:
        EdadmError: images of several sizes, or not 32 x 32 for the bundled classifier.
    """
    device = torch.device(device)
    network.to(device)
    for block in in_blocks(len(images), batch_size, lambda index: {"images": images[index]}):
        yield features_of(network, block["images"], device)
        advance(len(block["images"]))


def extract_features(
    images: Images,
    extractor: Extractor,
    batch_size: int = BATCH,
    weights: Path | None = None,
    layers: tuple[str, ...] = LAYERS,
    advance: Advance = lambda images: None,
    device: torch.device | str = "cpu",
) -> dict[str, Float[Tensor, "n _"]]:
    """Features (n, d) of every layer, fp32, on the CPU; `device` computes them."""
    network = build_extractor(extractor, weights, layers)
    batches = list(feature_batches(images, network, batch_size, advance=advance, device=device))
    return {layer: torch.cat([batch[layer] for batch in batches]) for layer in layers}
