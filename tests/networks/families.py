"""The published U-Nets at full size, and tiny ones with the same peculiarities."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edadm.config.load import load_config
from edadm.config.schema import Bits, Model, NoiseSchedule, Sampler, Trajectories
from edadm.deploy.grids import quantized_copy
from edadm.networks.build import build_network
from edadm.networks.inputs import Rows
from edadm.networks.settings.architecture import Architecture
from edadm.networks.settings.parts import Autoencoder, Conditioning, TextEncoder
from edadm.nn.insert import quantized_layers
from edadm.passes.prepare import prepare

from ..conftest import reinitialise
from .original_autoencoder import OriginalAutoencoder, OriginalTextEncoder
from .original_ldm import OriginalLdmUNet

FAMILIES = ("ldm4_bedroom", "ldm8_church", "ldm4_imagenet", "sd14_coco")
PUBLISHED = ("ddim_cifar10", *FAMILIES)
_SHARED: dict[str, Any] = {"image_size": 8, "channels": 16, "blocks_per_level": 1, "norm_groups": 4}


@cache
def published(name: str) -> Model:
    """The preset at full size."""
    return load_config().models[name]


def tiny(
    name: str, checkpoint: Path | str = "tiny.ckpt", prompts: str = "prompts.txt", **changes: Any
) -> Model:
    """The preset's smallest relative: every setting that is not a size is the same."""
    model = published(name)
    own = {
        "multipliers": (1, 2),
        "attention_resolutions": (4,),
        "in_channels": model.architecture.in_channels,
    }
    if name == "ldm4_bedroom":
        own["head_channels"] = 8
    if name == "ldm8_church":
        own |= {
            "multipliers": (1, 2, 2),
            "attention_resolutions": (8, 4),
            "heads": 4,
            "scale_shift": True,
            "resample": "res_block",
        }
    if name == "ldm4_imagenet":
        own |= {"heads": 1, "context_channels": 12}
    if name == "sd14_coco":
        own |= {"heads": 4, "context_channels": 24}
    conditioning = model.conditioning
    if conditioning and conditioning.kind == "classes":
        conditioning = conditioning.model_copy(update={"classes": 10, "images_per_class": 2})
    if conditioning and conditioning.kind == "text":
        encoder = TextEncoder(channels=24, hidden_channels=48, layers=2, heads=2, tokens=16)
        conditioning = Conditioning(
            kind="text", guidance=conditioning.guidance, prompts=prompts, encoder=encoder
        )
    autoencoder = model.autoencoder
    assert autoencoder is not None
    sizes = {"channels": 8, "multipliers": (1, 2), "blocks_per_level": 1, "norm_groups": 4, "codes": 32}
    settings = {
        "checkpoint": str(checkpoint),
        "layout": "compvis",
        "ema": model.ema,
        "architecture": Architecture(family=model.architecture.family, **_SHARED, **own),
        "autoencoder": Autoencoder.model_validate(autoencoder.model_dump() | sizes),
        "conditioning": conditioning,
        "schedule": NoiseSchedule.model_validate(model.schedule.model_dump()),
        "sampler": Sampler.model_validate(model.sampler.model_dump() | {"steps": 4}),
        "trajectories": Trajectories(count=6, batch_size=3, feature_rows=3, shards=1),
        "pixels": model.pixels,
    }
    return Model(**(settings | changes))


def random_network(network: nn.Module, seed: int) -> nn.Module:
    """With random weights of unit gain, in inference mode."""
    reinitialise(network, seed)
    return network.eval().requires_grad_(False)


def original_unet(model: Model, seed: int = 3) -> OriginalLdmUNet:
    return random_network(OriginalLdmUNet(model.architecture), seed)


def original_autoencoder(model: Model, seed: int = 4) -> OriginalAutoencoder:
    assert model.autoencoder is not None
    return random_network(OriginalAutoencoder(model.autoencoder), seed)


def original_checkpoint(model: Model) -> dict[str, Tensor]:
    """All that the original file holds: averaged weights that differ, a loss that nobody needs, schedule buffers."""
    unet, autoencoder = original_unet(model), original_autoencoder(model)
    state: dict[str, Tensor] = {"betas": torch.zeros(1000), "scale_factor": torch.tensor(0.25)}
    state |= {f"model.diffusion_model.{name}": tensor for name, tensor in unet.state_dict().items()}
    for name, tensor in original_unet(model, seed=30).state_dict().items():
        state[f"model_ema.diffusion_model{name.replace('.', '')}"] = tensor
    state |= {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(1)}
    state |= {f"first_stage_model.{name}": tensor for name, tensor in autoencoder.state_dict().items()}
    state["first_stage_model.loss.discriminator.weight"] = torch.zeros(2)
    if model.conditioning and model.conditioning.kind == "classes":
        generator = torch.Generator().manual_seed(5)
        rows = torch.randn(
            model.conditioning.classes + 1, model.architecture.context_channels or 1, generator=generator
        )
        state["cond_stage_model.embedding.weight"] = rows
    if model.conditioning and model.conditioning.kind == "text":
        encoder = random_network(OriginalTextEncoder(model.conditioning.encoder), 6)
        state |= {f"cond_stage_model.{name}": tensor for name, tensor in encoder.state_dict().items()}
    return state


@torch.no_grad()
def calibrated(name: str, bits: Bits, outliers: float = 1) -> tuple[nn.Module, nn.Module, Rows]:
    """A tiny U-Net with random weights, the same quantized to nearest, and the rows it was calibrated with.

    Every eighth channel of each norm's output is so many times as large as the others.
    """
    architecture = tiny(name).architecture
    unet = random_network(build_network(architecture), 1).to(memory_format=torch.channels_last)
    for module in unet.modules():
        if isinstance(module, nn.GroupNorm | nn.LayerNorm):
            module.weight[::8] *= outliers
    quantized = quantized_copy(unet, bits)
    generator = torch.Generator().manual_seed(2)
    rows = {
        "latents": torch.randn(4, architecture.in_channels, 8, 8, generator=generator),
        "timesteps": torch.tensor([9, 400, 700, 990]),
    }
    if architecture.context_channels:
        rows["context"] = torch.randn(4, 5, architecture.context_channels, generator=generator)
    prepare(quantized, Rows(rows), bits)
    for layer in quantized_layers(quantized).values():
        layer.set_codes(layer.nearest_codes())
    return unet, quantized.eval(), Rows(rows)
