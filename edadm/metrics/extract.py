"""From images to features, by any of the extractors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from edadm.config.schema import Extractor
from edadm.config.sharding.scored import BATCH
from edadm.errors import EdadmError
from edadm.metrics.features import LAYERS, NAME, CifarFeatureExtractor
from edadm.metrics.images.datasets import Images

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
    from edadm.metrics.inception import (
        PytorchFidInception,
        TorchFidelityInception,
    )  # torchvision takes a while to import

    return {"inception": TorchFidelityInception, "pytorch_fid": PytorchFidInception}[extractor](
        weights, layers
    )


class _Dataset(Dataset):
    """Images as torch's loader wants them; all must be of one size."""

    def __init__(self, images: Images, side: int | None):
        self.images = images
        self.expected = tuple(images[0].shape) if side is None else (3, side, side)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        pixels = self.images[index]
        if tuple(pixels.shape) != self.expected:
            size, wanted = (" x ".join(map(str, shape[1:])) for shape in (pixels.shape, self.expected))
            raise EdadmError(
                f"image {index} has {size} pixels, not {wanted}; set `resolution` to bring all images to one "
                "size"
            )
        return pixels


def feature_batches(
    images: Images,
    network: FeatureExtractorBase,
    batch_size: int,
    workers: int = 0,
    advance: Advance = lambda images: None,
    device: torch.device | str = "cpu",
) -> Iterator[dict[str, Float[Tensor, "n _"]]]:
    """Features of one batch after the other by layer, on the CPU; `device` computes them.

    Raises:
        EdadmError: images of several sizes, or not 32 x 32 for the bundled classifier, which has that size
            only.
    """
    device = torch.device(device)
    network.to(device)
    side = 32 if isinstance(network, CifarFeatureExtractor) else None
    loader = DataLoader(
        _Dataset(images, side), batch_size=batch_size, num_workers=workers, pin_memory=device.type == "cuda"
    )
    for batch in loader:
        with torch.no_grad():
            found = network(batch.to(device, non_blocking=True))
        yield {
            layer: values.float().cpu() for layer, values in zip(network.features_list, found, strict=True)
        }
        advance(len(batch))


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
