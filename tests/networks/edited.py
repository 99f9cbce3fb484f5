"""Tiny pipelines of Stable Diffusion's relatives: inpainting, InstructPix2Pix, XL's refiner, and 2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLImg2ImgPipeline,
)
from PIL import Image
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from edadm.config.described.folder import describe_folder
from edadm.config.schema import Model, Trajectories
from edadm.networks.described.tensors import describe_tensors

from .families import random_network
from .sdxl import TINY, encoder, scheduler
from .single_file import FIRST, WIDTH, second, unet_of, written

CHANNELS = {"inpainting": 9, "instruct_pix2pix": 8}
REFINER = "sdxl_refiner"
VELOCITY = "stable_diffusion_2"  # from a single file, and predicts v
REFINING = TINY | {"cross_attention_dim": 12, "projection_class_embeddings_input_dim": 32}  # 12, and 5 of 4
PIPELINES: dict[str, Any] = {
    "inpainting": StableDiffusionInpaintPipeline,
    "instruct_pix2pix": StableDiffusionInstructPix2PixPipeline,
    REFINER: StableDiffusionXLImg2ImgPipeline,
    VELOCITY: StableDiffusionPipeline,
}


def parts_of(kind: str) -> dict[str, nn.Module]:
    """The networks of a pipeline with random weights, by their folder's name."""
    sides = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    sizes = {"block_out_channels": [8, 16], "norm_num_groups": 4, "scaling_factor": 0.25}
    vae = random_network(AutoencoderKL(latent_channels=4, **sides, **sizes), 2)
    if kind == VELOCITY:
        return {"unet": second()[0], "vae": vae}
    if kind == REFINER:
        text = random_network(CLIPTextModelWithProjection(encoder(12, "gelu", 12)), 3)
        return {"unet": unet_of(base=REFINING), "vae": vae, "text_encoder_2": text}
    text = random_network(CLIPTextModel(encoder(WIDTH, "quick_gelu", 8)), 3)
    return {"unet": unet_of({"in_channels": CHANNELS[kind]}, FIRST), "vae": vae, "text_encoder": text}


def write_images(folder: Path, count: int, side: int = 20) -> Path:
    """Images of noise, wider than high."""
    folder.mkdir()
    generator = np.random.default_rng(1)
    for number in range(count):
        pixels = generator.integers(0, 256, (side, side + 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def write_pipeline(kind: str, folder: Path) -> dict[str, nn.Module]:
    """The tiny pipeline as diffusers saves one, or a single file of it; returns its networks."""
    parts = parts_of(kind)
    if kind == VELOCITY:
        folder.mkdir()
        written(second()[2], folder / "model.safetensors")
        return parts
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    scheduler().save_pretrained(folder / "scheduler")
    if kind == REFINER:
        (folder / "model_index.json").write_text('{"force_zeros_for_empty_prompt": false}')
    return parts


def described(folder: Path, prompts: Path, images: Path) -> Model:
    """The preset that the folder's own files make, with few and short runs."""
    file = folder / "model.safetensors"
    settings = (describe_tensors(file, {}) if file.is_file() else describe_folder(folder)).settings
    if file.is_file():
        settings |= {"prediction": "v", "sampler": {"method": "ddim", "spacing": "uniform_from_one"}}
        own = {"attention_head_dim": [1, 2], "norm_num_groups": 4}
        settings["architecture"] |= {
            "image_size": 8,
            "diffusers": settings["architecture"]["diffusers"] | own,
        }
        settings["autoencoder"]["norm_groups"] = 4
    else:
        settings["conditioning"]["image_folder"] = str(images)
    settings["conditioning"]["prompts"] = str(prompts)
    settings["sampler"]["steps"] = 2 if settings["conditioning"]["kind"] == REFINER else 3
    settings["trajectories"] = Trajectories(count=3, batch_size=3, feature_rows=3, shards=1).model_dump()
    return Model.model_validate(settings)


def pipeline_of(kind: str, parts: dict[str, nn.Module]) -> Any:
    """diffusers' own pipeline of the networks."""
    if kind == REFINER:
        texts = {"text_encoder": None, "tokenizer": None, "tokenizer_2": None}
        own = {"requires_aesthetics_score": True, "add_watermarker": False}
        pipeline = PIPELINES[kind](**parts, **texts, scheduler=scheduler(), **own)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline
    texts = {"text_encoder": None} if kind == VELOCITY else {}
    told = {"prediction_type": "v_prediction"} if kind == VELOCITY else {}
    pipeline = PIPELINES[kind](
        **parts,
        **texts,
        tokenizer=None,
        scheduler=DDIMScheduler.from_config(scheduler().config, **told),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def with_means(vae: nn.Module) -> nn.Module:
    """The autoencoder, whose latents have no spread: what is drawn of them are their means."""
    layer: Any = vae.get_submodule("quant_conv")
    with torch.no_grad():
        layer.weight[4:] = 0
        layer.bias[4:] = -40
    return vae
