"""Vision transformers of timm and open_clip whose features are compared: DINOv2's and CLIP's.

Weights come from a file that is read without executing a pickle; neither library is asked for any.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from edadm.networks.weights import CheckpointError, read_state

DINO, DINO_SIDE = "vit_large_patch14_dinov2", 224
CLIP, CLIP_SIDE = "ViT-L-14-336-quickgelu", 336
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation
_OPENAI = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


class VisionExtractor(FeatureExtractorBase):
    """One vector an image, `pooled`, from uint8 images (n, 3, h, w) of any size.

    Args:
        name: of the extractor.
        network: from normalised images to vectors.
        side: in pixels, to which images are resized, whatever their shape.
        colours: mean and standard deviation of red, green and blue in [0, 1].
        antialias: whether the bicubic filter widens where it shrinks.
    """

    def __init__(self, name: str, network: nn.Module, side: int, colours: Any, antialias: bool):
        super().__init__(name, ["pooled"])
        self.network, self.side, self.antialias = network, side, antialias
        for what, values in zip(("mean", "deviation"), colours, strict=True):
            self.register_buffer(what, torch.tensor(values)[:, None, None], persistent=False)
        self.eval().requires_grad_(False)

    def forward(self, images: UInt8[Tensor, "n 3 h w"]) -> tuple[Float[Tensor, "n d"], ...]:
        size = (self.side, self.side)
        seen = F.interpolate(images.float() / 255, size, mode="bicubic", antialias=self.antialias)
        return (self.network((seen - self.mean) / self.deviation),)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return ("pooled",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        return "pooled"

    @staticmethod
    def can_be_compiled() -> bool:
        return False


def dinov2(weights: Path, name: str = DINO) -> VisionExtractor:
    """DINOv2's ViT-L/14: the class token after the last norm, for FD-DINOv2 (arXiv 2306.04675).

    At 224 px, to which timm brings the position embedding, and Pillow's kind of bicubic filter.

    Args:
        weights: in timm's layout.
        name: of a network of timm.

    Raises:
        CheckpointError: the weights cannot be read, or are of another network.
    """
    import timm
    from timm.models.vision_transformer import checkpoint_filter_fn

    network = timm.create_model(name, pretrained=False, num_classes=0, img_size=DINO_SIDE)
    state = {key: value for key, value in read_state(weights).items() if key != "mask_token"}
    _load(network, state, checkpoint_filter_fn, weights, "DINOv2's ViT-L/14 in timm's layout")
    return VisionExtractor("dinov2", network, DINO_SIDE, _IMAGENET, antialias=True)


def clip(weights: Path, name: str = CLIP) -> VisionExtractor:
    """OpenAI's CLIP ViT-L/14 at 336 px: image embeddings of length 1, for CMMD (arXiv 2401.09603).

    Resized bicubically without widening the filter, as the authors' program in PyTorch does.

    Args:
        weights: in open_clip's layout.
        name: of a network of open_clip.

    Raises:
        CheckpointError: the weights cannot be read, or are of another network.
    """
    import open_clip

    network = open_clip.create_model(name, pretrained=None, load_weights=False)
    _load(network, read_state(weights), lambda state, _: state, weights, f"{name} in open_clip's layout")
    side = network.visual.image_size
    side = side[0] if isinstance(side, tuple) else side
    return VisionExtractor("clip", _Embedding(network.visual), side, _OPENAI, antialias=False)


class _Embedding(nn.Module):
    """The tower of CLIP that sees images; vectors of length 1."""

    def __init__(self, tower: nn.Module):
        super().__init__()
        self.tower = tower

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        return F.normalize(self.tower(images), dim=1)


def _load(network: nn.Module, state: Any, adapted: Any, weights: Path, what: str) -> None:
    try:
        network.load_state_dict(adapted(state, network))
    except (RuntimeError, KeyError, AttributeError) as error:
        reason = (str(error).splitlines() or ["another network"])[-1].strip()
        raise CheckpointError(f"{weights} is not {what} ({reason}); fetch it with `edadm download`") from None
