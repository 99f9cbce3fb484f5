"""The U-Net of Stable Diffusion XL."""

from __future__ import annotations

from typing import Any, ClassVar

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from edadm.networks.inputs import InputSpec, Rows
from edadm.networks.settings.architecture import UNetArchitecture
from edadm.networks.settings.parts import TIME_IDS
from edadm.networks.unet.diffusers import DiffusersUNets


class Sdxl(DiffusersUNets):
    """U-Nets that add a pooled text and the sizes of the image to their embedding of time (arXiv 2307.01952).

    diffusers calls that the `addition_embed_type` `text_time`.
    """

    name = "sdxl"
    classes: ClassVar[tuple[type[nn.Module], ...]] = (UNet2DConditionModel,)

    def takes(self, network: nn.Module) -> bool:
        settings: Any = getattr(network, "config", {})
        return super().takes(network) and settings.get("addition_embed_type") == "text_time"

    def added(self, architecture: UNetArchitecture) -> dict[str, Any]:
        return super().added(architecture) | {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": architecture.size_channels,
            "projection_class_embeddings_input_dim": architecture.added_channels,
        }

    def inputs(self, network: nn.Module) -> InputSpec:
        settings: Any = network.config
        sizes = TIME_IDS * settings["addition_time_embed_dim"]
        told = {
            "pooled": (settings["projection_class_embeddings_input_dim"] - sizes,),
            "time_ids": (TIME_IDS,),
        }
        return InputSpec({**super().inputs(network).shapes, **told})

    def call(self, network: nn.Module, rows: Rows) -> Float[Tensor, " n *s"]:
        given = rows.tensors
        added = {"text_embeds": given["pooled"], "time_ids": given["time_ids"]}
        told = (rows.latents, rows.timesteps, given["context"])
        predicted: Tensor = network(*told, added_cond_kwargs=added, return_dict=False)[0]
        return predicted


FAMILY = Sdxl()
