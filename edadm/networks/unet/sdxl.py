"""The U-Net of Stable Diffusion XL."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from edadm.networks.inputs import InputSpec, Rows
from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.parts import TIME_IDS, sizes_told
from edadm.networks.unet.diffusers import DiffusersUNets


class Sdxl(DiffusersUNets):
    """U-Nets that add a pooled text and the sizes of the image to their embedding of time (arXiv 2307.01952).

    diffusers calls that the `addition_embed_type` `text_time`. The refiner is told four sizes and a score.
    """

    name = "sdxl"
    classes: ClassVar[tuple[type[nn.Module], ...]] = (UNet2DConditionModel,)

    def takes(self, network: nn.Module) -> bool:
        settings: Any = getattr(network, "config", {})
        return super().takes(network) and settings.get("addition_embed_type") == "text_time"

    def added(self, architecture: Architecture) -> dict[str, Any]:
        return super().added(architecture) | {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": architecture.size_channels,
            "projection_class_embeddings_input_dim": architecture.added_channels,
        }

    def inputs(self, network: nn.Module) -> InputSpec:
        settings: Any = network.config
        added, each = settings["projection_class_embeddings_input_dim"], settings["addition_time_embed_dim"]
        sizes = sizes_told(added, each, settings["cross_attention_dim"])
        scores = int(sizes != TIME_IDS)
        told: dict[str, tuple[int, ...]] = {
            "pooled": (added - (sizes + scores) * each,),
            "time_ids": (sizes,),
        }
        told |= {"score": (1,)} if scores else {}
        return InputSpec({**super().inputs(network).shapes, **told})

    def call(self, network: nn.Module, rows: Rows) -> Float[Tensor, " n *s"]:
        given = rows.tensors
        sizes = given["time_ids"]
        if "score" in given:
            sizes = torch.cat([sizes.to(given["score"]), given["score"]], dim=1)
        added = {"text_embeds": given["pooled"], "time_ids": sizes}
        told = (rows.latents, rows.timesteps, given["context"])
        predicted: Tensor = network(*told, added_cond_kwargs=added, return_dict=False)[0]
        return predicted


FAMILY = Sdxl()
