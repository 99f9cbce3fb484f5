"""Tiny models as people share them: one file in the layout of CompVis' code, with random weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from open_clip.transformer import TextTransformer
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPTextModel

from edadm.networks.settings.parts import Autoencoder

from .families import random_network
from .original_autoencoder import OriginalAutoencoder
from .sdxl import TINY as TINY_XL
from .sdxl import TOKENS, encoder

State = dict[str, Tensor]
WIDTH = 24
ACROSS = ["CrossAttnDownBlock2D", "DownBlock2D"]
FIRST: dict[str, Any] = {  # Stable Diffusion 1's kind
    "sample_size": 8,
    "block_out_channels": [8, 16],
    "down_block_types": ACROSS,
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 2,
    "cross_attention_dim": WIDTH,
}
SECOND = FIRST | {"attention_head_dim": [1, 2], "use_linear_projection": True}  # Stable Diffusion 2's
AUTOENCODER = Autoencoder(
    kind="kl", latent_channels=4, channels=8, multipliers=(1, 2), blocks_per_level=1, norm_groups=4
)
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_STEMS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
}
_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")


def unet_of(changes: dict[str, Any] | None = None, base: dict[str, Any] = FIRST, seed: int = 1) -> nn.Module:
    """A tiny U-Net of diffusers."""
    return random_network(UNet2DConditionModel(**(base | (changes or {}))), seed)


def in_compvis(unet: nn.Module) -> State:
    """The tensors of a U-Net of diffusers by the names of CompVis' code."""
    settings: Any = unet.config
    blocks, across = settings["layers_per_block"] + 1, settings["up_block_types"]
    found: State = {}
    for name, tensor in unet.state_dict().items():
        match = _BLOCK.fullmatch(name)
        if match is None:
            stem = next(stem for stem in _STEMS if name.startswith(f"{stem}."))
            place, part = _STEMS[stem], name.removeprefix(f"{stem}.")
        else:
            side, level, kind, index, part = match.groups()
            number = int(level) * blocks + int(index)
            if kind == "downsamplers":
                place, part = f"input_blocks.{(int(level) + 1) * blocks}.0", part.replace("conv", "op")
            elif kind == "upsamplers":
                position = 2 if across[int(level)].startswith("Cross") else 1
                place = f"output_blocks.{(int(level) + 1) * blocks - 1}.{position}"
            else:
                first = f"input_blocks.{number + 1}" if side == "down" else f"output_blocks.{number}"
                place = f"{first}.{'0' if kind == 'resnets' else '1'}"
        stem, _, parameter = part.rpartition(".")
        found[f"{place}.{_RESNET.get(stem, stem)}.{parameter}".replace("..", ".")] = tensor
    return found


def open_clip_text(width: int, layers: int, projection: int, seed: int = 5) -> nn.Module:
    """A tiny text encoder of open_clip itself."""
    sizes = {"context_length": TOKENS, "width": width, "heads": 1, "layers": layers, "mlp_ratio": 2}
    text = TextTransformer(vocab_size=49408, output_dim=projection, **sizes)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in text.named_parameters():
        drawn = torch.randn(parameter.shape, generator=generator)
        scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.1
        parameter.data = drawn * scale + (parameter.ndim == 1 and name.endswith("weight"))
    return text.eval().requires_grad_(False)


def below(prefix: str, state: State) -> State:
    """The tensors with a prefix before their names."""
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def first_stage() -> State:
    """An autoencoder."""
    return below("first_stage_model.", random_network(OriginalAutoencoder(AUTOENCODER), 4).state_dict())


def clip_text(width: int, activation: str = "quick_gelu", seed: int = 6) -> State:
    """The text encoder of Stable Diffusion 1, as its files name it."""
    text = random_network(CLIPTextModel(encoder(width, activation, 8)), seed).state_dict()
    named = {name.removeprefix("text_model."): tensor for name, tensor in text.items()}
    return below("transformer.text_model.", named | {"embeddings.position_ids": torch.arange(TOKENS)[None]})


def whole(unet: nn.Module, condition: State) -> State:
    """A whole model: the U-Net, an autoencoder, and text encoders under their own names."""
    return below("model.diffusion_model.", in_compvis(unet)) | first_stage() | condition


def second() -> tuple[nn.Module, nn.Module, State]:
    """Stable Diffusion 2's kind: U-Net, text encoder, and the file of both."""
    unet, text = unet_of(base=SECOND), open_clip_text(WIDTH, 3, WIDTH)
    own = text.state_dict() | {"logit_scale": torch.ones(())}
    return unet, text, whole(unet, below("cond_stage_model.model.", own))


def xl() -> tuple[nn.Module, nn.Module, State]:
    """Stable Diffusion XL's kind: U-Net, second text encoder, and the file of all."""
    unet, text = unet_of(base=TINY_XL), open_clip_text(12, 3, 10)
    own = text.state_dict() | {"logit_scale": torch.ones(())}
    condition = below("conditioner.embedders.0.", clip_text(8))
    return unet, text, whole(unet, condition | below("conditioner.embedders.1.model.", own))


def written(state: State, path: Path, dtype: torch.dtype | None = None) -> Path:
    """A safetensors file of the tensors, in another type of numbers if one is named."""
    cast = {
        name: tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }
    save_file({name: tensor.contiguous().clone() for name, tensor in cast.items()}, path)
    return path
