"""Tiny PixArts, as diffusers saves their pipelines: with T5, and the SentencePiece model of its tokenizer."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, PixArtTransformer2DModel
from torch import nn

from edadm.config.schema import Model, Trajectories
from edadm.networks.inputs import Rows

from .families import random_network

# transformer/config.json of huggingface.co/PixArt-alpha/PixArt-XL-2-512x512
PUBLISHED: dict[str, Any] = {
    "_class_name": "PixArtTransformer2DModel",
    "_diffusers_version": "0.22.0.dev0",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 72,
    "attention_type": "default",
    "caption_channels": 4096,
    "cross_attention_dim": 1152,
    "dropout": 0.0,
    "in_channels": 4,
    "norm_elementwise_affine": False,
    "norm_eps": 1e-06,
    "norm_num_groups": 32,
    "norm_type": "ada_norm_single",
    "num_attention_heads": 16,
    "num_embeds_ada_norm": 1000,
    "num_layers": 28,
    "out_channels": 8,
    "patch_size": 2,
    "sample_size": 64,
    "upcast_attention": False,
    "use_additional_conditions": False,
}
TINY: dict[str, Any] = {
    "sample_size": 8,
    "num_attention_heads": 2,
    "attention_head_dim": 24,
    "num_layers": 2,
    "cross_attention_dim": 48,
    "caption_channels": 16,
}
SIZED: dict[str, Any] = TINY | {"use_additional_conditions": True, "interpolation_scale": 2}
TOKENS = 12
_T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "vocab_size": 40}
_SPECIAL = ("<pad>", "</s>", "<unk>")
_PIECES = ("\u2581a", "\u2581picture", "\u2581of", "\u2581boats", "\u2581", *"abcdefghijklmnopqrstuvwxyz")


def tiny_pixart(settings: dict[str, Any] = TINY, seed: int = 1) -> Any:
    """The transformer with random weights."""
    return random_network(PixArtTransformer2DModel(**settings), seed)


def sentencepiece() -> bytes:
    """A model of few pieces, as google/sentencepiece writes it: those of one letter are the least likely."""
    kinds = {"<pad>": 3, "</s>": 3, "<unk>": 2}
    model = b""
    for place, piece in enumerate((*_SPECIAL, *_PIECES)):
        score = 0.0 if piece in _SPECIAL else -1.0 - place
        inner = (
            _field(1, piece.encode())
            + b"\x15"
            + struct.pack("<f", score)
            + bytes([0x18, kinds.get(piece, 1)])
        )
        model += _field(1, inner)
    return model + _field(2, b"\x18\x01") + _field(3, _field(1, b"identity"))


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2, len(content)]) + content


def write_pipeline(folder: Path, settings: dict[str, Any] = TINY, kind: str = "Alpha") -> Any:
    """The pipeline's folder; returns its transformer."""
    from transformers import T5Config, T5EncoderModel

    network = tiny_pixart(settings)
    network.save_pretrained(folder / "transformer")
    sides = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    vae = AutoencoderKL(latent_channels=4, block_out_channels=[8, 16], norm_num_groups=4, **sides)
    random_network(vae, 2).save_pretrained(folder / "vae")
    encoder = T5EncoderModel(T5Config(**_T5, feed_forward_proj="gated-gelu"))
    random_network(encoder, 3).save_pretrained(folder / "text_encoder")
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "spiece.model").write_bytes(sentencepiece())
    DPMSolverMultistepScheduler(beta_end=0.02).save_pretrained(folder / "scheduler")
    entries = {
        name: ["diffusers", type(part).__name__]
        for name, part in {"transformer": network, "vae": vae}.items()
    }
    entries |= {"scheduler": ["diffusers", "DPMSolverMultistepScheduler"]}
    entries |= {
        "text_encoder": ["transformers", "T5EncoderModel"],
        "tokenizer": ["transformers", "T5Tokenizer"],
    }
    (folder / "model_index.json").write_text(json.dumps({"_class_name": f"PixArt{kind}Pipeline"} | entries))
    return network


def described(folder: Path, prompts: Path | None = None) -> Model:
    """The preset that the folder's own files make, with short prompts, and few and short runs."""
    from edadm.config.described.folder import describe_folder

    settings = describe_folder(folder).settings
    settings["conditioning"]["t5"]["tokens"] = TOKENS
    settings["conditioning"]["prompts"] = str(prompts or folder / "prompts.txt")
    settings["sampler"] |= {"steps": 3}
    settings["trajectories"] = Trajectories(count=3, batch_size=3, feature_rows=3, shards=1).model_dump()
    return Model.model_validate(settings)


def rows_of(count: int, sized: bool = False) -> Rows:
    """Inputs of the tiny transformer, of which each row counts fewer tokens than the one before."""
    generator = torch.Generator().manual_seed(4)
    latents = torch.randn(count, 4, 8, 8, generator=generator)
    context = torch.randn(count, TOKENS, 16, generator=generator)
    mask = (torch.arange(TOKENS) < torch.arange(TOKENS, TOKENS - count, -1)[:, None]).float()
    told = {"context": context, "context_mask": mask}
    if sized:
        told["time_ids"] = torch.tensor([[16 * (row + 1), 16] for row in range(count)])
    return Rows({"latents": latents, "timesteps": torch.linspace(20, 900, count).long(), **told})


def call(network: nn.Module, rows: Rows) -> torch.Tensor:
    """All that diffusers' own transformer predicts for these rows."""
    told = rows.tensors
    added: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
    if (size := told.get("time_ids")) is not None:
        added = {"resolution": size.float(), "aspect_ratio": (size[:, :1] / size[:, 1:])}
    given = (rows.latents, told["context"], rows.timesteps, added)
    predicted: torch.Tensor = network(*given, encoder_attention_mask=told["context_mask"]).sample
    return predicted
