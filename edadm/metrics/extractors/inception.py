"""InceptionV3 as torch-fidelity and as pytorch-fid run it.

Weights come from a file that is read without executing a pickle.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytorch_fid.inception
import torch_fidelity.feature_extractor_inceptionv3
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from edadm.errors import EdadmError
from edadm.networks.weights import CheckpointError, read_state

SPATIAL_CHANNELS = 7


class InceptionExtractor(FeatureExtractorBase):
    """Layers of an InceptionV3, from uint8 images (n, 3, h, w) of any size.

    `pooled` (n, 2048): the averages before the classifier, for FID, KID, precision and recall. `spatial` (n,
    2023): the first 7 channels of `Mixed_6d.branch1x1` (17x17), flattened with channels last, for sFID.
    Guided-diffusion's evaluator takes the first 7 channels of `mixed_6/conv:0` of the TensorFlow graph, which
    torch-fidelity's own weight converter maps to that layer; that the numbers agree with the evaluator's on
    the real weights is **not verified** here. `logits` (n, 1008), without the bias, for IS; torch-fidelity's
    network only.
    """

    def __init__(self, name: str, network: nn.Module, mixed_6d: nn.Module, layers: tuple[str, ...]):
        super().__init__(name, list(layers))
        self.network = network
        self._maps: Tensor | None = None
        mixed_6d.branch1x1.register_forward_hook(self._keep)  # type: ignore[union-attr]
        self.eval().requires_grad_(False)

    def _keep(self, _module: nn.Module, _inputs: Any, maps: Tensor) -> None:
        self._maps = maps[:, :SPATIAL_CHANNELS]

    def forward(self, images: UInt8[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n _"], ...]:
        found = self.whole(images)
        assert self._maps is not None
        found["spatial"] = self._maps.permute(0, 2, 3, 1).flatten(1)
        self._maps = None
        return tuple(found[layer] for layer in self.features_list)

    def whole(self, images: UInt8[Tensor, "n 3 h w"]) -> dict[str, Tensor]:
        """`pooled`, and what else the network's own forward gives."""
        raise TypeError("an extractor of features is of torch-fidelity or of pytorch-fid")

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("pooled", "spatial", "logits")

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return {"isc": "logits"}.get(metric, "pooled")

    @staticmethod
    def can_be_compiled() -> bool:
        return False


class TorchFidelityInception(InceptionExtractor):
    """torch-fidelity's network: resized as by TensorFlow 1, scaled to [-1, 1)."""

    def __init__(self, weights: Path, layers: tuple[str, ...]):
        module = torch_fidelity.feature_extractor_inceptionv3
        own = ["2048", "logits_unbiased"]
        with _instead_of_a_download(module, weights):
            network = module.FeatureExtractorInceptionV3("inception-v3-compat", own)
        super().__init__("inception", network, network.Mixed_6d, layers)

    def whole(self, images: UInt8[Tensor, "n 3 h w"]) -> dict[str, Tensor]:
        pooled, logits = self.network(images)
        return {"pooled": pooled, "logits": logits}


class PytorchFidInception(InceptionExtractor):
    """pytorch-fid's network: images in [0, 1], resized bilinearly by PyTorch, scaled to [-1, 1]."""

    def __init__(self, weights: Path, layers: tuple[str, ...]):
        if "logits" in layers:
            raise EdadmError(
                "pytorch-fid's network gives no class scores for IS; take inception_score out of `scores`, "
                "or use inception"
            )
        module = pytorch_fid.inception
        with _instead_of_a_download(module, weights):
            network = module.InceptionV3([module.InceptionV3.DEFAULT_BLOCK_INDEX])
        super().__init__("pytorch_fid", network, network.blocks[2][6], layers)

    def whole(self, images: UInt8[Tensor, "n 3 h w"]) -> dict[str, Tensor]:
        return {"pooled": self.network(images.float() / 255)[0].flatten(1)}


@contextmanager
def _instead_of_a_download(module: ModuleType, weights: Path) -> Iterator[None]:
    """Hands both libraries the weights of a local file, which they would fetch inside their constructors.

    Raises:
        CheckpointError: the file is damaged, no plain checkpoint, or of another network.
    """
    state = read_state(weights)
    original = module.load_state_dict_from_url
    module.load_state_dict_from_url = lambda *_, **__: state  # type: ignore[attr-defined]
    try:
        yield
    except RuntimeError as error:
        if "state_dict" not in str(error):
            raise
        reason = str(error).splitlines()[1].strip()
        raise CheckpointError(
            f"{weights} is not the Inception of FID ({reason}); fetch it with `edadm download`"
        ) from None
    finally:
        module.load_state_dict_from_url = original  # type: ignore[attr-defined]
