"""What a U-Net computes from the timestep alone: the temporal information block of arXiv 2311.16503."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diffusers.models.resnet import ResnetBlock2D
from jaxtyping import Float, Int
from torch import Tensor, cat, nn

from edadm.networks.family import TemporalPart

_ADDED = ("add_embedding", "class_embedding")  # by diffusers' names: what joins the time embedding


class TemporalBlock(TemporalPart):
    """The time embedding and the projections of it in all res-blocks, which the network goes on to use.

    Args:
        network: a U-Net of diffusers' modules, quantized or not.
        blocks: its res-blocks that project the embedding, by name.
    """

    def __init__(self, network: nn.Module, blocks: Mapping[str, ResnetBlock2D]):
        super().__init__()
        unet: Any = network
        self.sinusoids, self.embedding = unet.time_proj, unet.time_embedding
        self.projections = nn.ModuleList(block.time_emb_proj for block in blocks.values())
        self.activations = nn.ModuleList(
            nn.Identity() if block.skip_time_act else block.nonlinearity for block in blocks.values()
        )
        linear = [f"time_embedding.{name}" for name, part in self.embedding.named_modules() if _weighs(part)]
        self.layers = (*linear, *(f"{name}.time_emb_proj" for name in blocks))

    def features(self, timesteps: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
        found: Tensor = self.sinusoids(timesteps)
        return found.to(next(self.embedding.parameters()).dtype)

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n channels"]:
        embedded = self.embedding(features)
        parts = zip(self.projections, self.activations, strict=True)
        return cat([project(activate(embedded)) for project, activate in parts], dim=1)


def temporal_block(network: nn.Module) -> TemporalBlock | None:
    """The temporal block of a U-Net; None where something else joins the embedding, or nothing reads it."""
    if any(getattr(network, name, None) is not None for name in _ADDED):
        return None
    blocks = {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, ResnetBlock2D) and module.time_emb_proj is not None
    }
    return TemporalBlock(network, blocks) if blocks else None


def _weighs(module: nn.Module) -> bool:
    return isinstance(getattr(module, "weight", None), Tensor)
