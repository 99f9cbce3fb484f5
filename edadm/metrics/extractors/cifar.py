"""The bundled classifier as a torch-fidelity feature extractor."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F
from torch_fidelity.feature_extractor_base import FeatureExtractorBase
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor

from edadm.config.files.sources import locate
from edadm.networks.classifier import CifarClassifier
from edadm.networks.weights import read_state

NAME = "cifar10_classifier"
LAYERS = ("pooled", "spatial", "logits")
SPATIAL_CHANNELS = 8
SIDE = 32  # pixels


class CifarFeatureExtractor(FeatureExtractorBase):
    """Three layers of the CIFAR-10 classifier, from uint8 images (n, 3, 32, 32).

    `pooled` (n, 128): averages of the last feature maps, for FID. `spatial` (n, 128): the first 8 of these
    maps averaged to 4x4, which keeps where things are, for sFID (as guided-diffusion's evaluator takes the
    first 7 maps of an inner Inception layer). `logits` (n, 10), for IS.
    """

    INPUT_IMAGE_SIZE = SIDE

    def __init__(
        self, name: str, features_list: list[str], feature_extractor_weights_path: str | None = None, **_: Any
    ):
        super().__init__(name, features_list)
        self.classifier = CifarClassifier()
        state = read_state(locate(feature_extractor_weights_path or "bundled:cifar10_classifier"))
        self.classifier.load_state_dict(
            {key: t.float() if t.is_floating_point() else t for key, t in state.items()}
        )
        self.eval().requires_grad_(False)

    def forward(self, images: UInt8[Tensor, "n 3 32 32"]) -> tuple[Float[Tensor, "n _"], ...]:
        maps = self.classifier.maps(images)
        pooled = maps.mean(dim=(2, 3))
        spatial = F.avg_pool2d(maps[:, :SPATIAL_CHANNELS], 2).flatten(1)
        layers = {"pooled": pooled, "spatial": spatial, "logits": self.classifier.head(pooled)}
        return tuple(layers[layer] for layer in self.features_list)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return LAYERS

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return {"isc": "logits"}.get(metric, "pooled")

    @staticmethod
    def can_be_compiled() -> bool:
        return True

    @staticmethod
    def get_dummy_input_for_compile() -> Tensor:
        return torch.zeros(4, 3, 32, 32, dtype=torch.uint8)


def register() -> None:
    """Makes the extractor known to torch-fidelity as `cifar10_classifier`; harmless if it already is."""
    if NAME not in FEATURE_EXTRACTORS_REGISTRY:
        register_feature_extractor(NAME, CifarFeatureExtractor)
