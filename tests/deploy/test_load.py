"""A loaded network does in diffusers' pipelines what the network that was saved does."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    LDMPipeline,
    StableDiffusionPipeline,
    VQModel,
)
from diffusers.models import modeling_utils
from diffusers.utils import logging
from torch import Tensor, nn

import edadm
from edadm.deploy.backends.base import lower
from edadm.deploy.backends.cuda_int8 import lower_for_cuda
from edadm.errors import EdadmError
from edadm.networks.weights import CheckpointError
from edadm.nn.insert import quantized_layers

from ..networks.families import random_network
from .conftest import Family

logging.set_verbosity_error()
BLOCKS = {"block_out_channels": (8, 8), "norm_num_groups": 4, "latent_channels": 3}
HALVES = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}


def images(pipeline: Any, **options: Any) -> np.ndarray:
    """What a pipeline makes from the same noise as the last one."""
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        num_inference_steps=3, generator=torch.Generator().manual_seed(0), output_type="np", **options
    ).images


def assert_same_only_with_the_same_network(
    pipeline: Any, networks: tuple[nn.Module, nn.Module, nn.Module], **options: Any
) -> None:
    """The third network makes the second one's images, and not the first one's."""
    made = []
    for network in networks:
        pipeline.unet = network
        made.append(images(pipeline, **options))
    assert np.isfinite(made[2]).all()
    assert np.array_equal(made[2], made[1])
    assert not np.array_equal(made[2], made[0])


@pytest.mark.parametrize(
    ("pipeline", "scheduler"), [(DDIMPipeline, DDIMScheduler), (DDPMPipeline, DDPMScheduler)]
)
def test_pipelines_of_pixels(
    pipeline: Any, scheduler: Any, float_unet: nn.Module, folded: nn.Module, saved: Path
) -> None:
    unet = edadm.load(saved)
    assert (unet.config.sample_size, unet.config.in_channels) == (16, 3)
    assert (unet.dtype, unet.device.type) == (torch.float32, "cpu")
    assert_same_only_with_the_same_network(
        pipeline(float_unet, scheduler()), (float_unet, folded, unet), batch_size=2
    )


def test_a_pipeline_of_latents(quantized_family: Callable[[str, Path], Family], tmp_path: Path) -> None:
    unet, quantized, _ = quantized_family("ldm4_bedroom", tmp_path / "quantized.safetensors")
    loaded = edadm.load(tmp_path / "quantized.safetensors")
    autoencoder = random_network(VQModel(**BLOCKS, **HALVES, num_vq_embeddings=16), 3)
    pipeline = LDMPipeline(vqvae=autoencoder, unet=unet, scheduler=DDIMScheduler(clip_sample=False))
    assert_same_only_with_the_same_network(pipeline, (unet, quantized, loaded), batch_size=2)


def test_stable_diffusion(quantized_family: Callable[[str, Path], Family], tmp_path: Path) -> None:
    unet, quantized, rows = quantized_family("sd14_coco", tmp_path / "quantized.safetensors")
    loaded = edadm.load(tmp_path / "quantized.safetensors")
    autoencoder = random_network(AutoencoderKL(**(BLOCKS | {"latent_channels": 4}), **HALVES), 3)
    parts = {"text_encoder": None, "tokenizer": None, "safety_checker": None, "feature_extractor": None}
    pipeline = StableDiffusionPipeline(
        vae=autoencoder, unet=unet, scheduler=DDIMScheduler(), **parts, requires_safety_checker=False
    )
    context = rows.tensors["context"]
    prompts = {"prompt_embeds": context[:2], "negative_prompt_embeds": context[2:]}
    options = prompts | {"height": 16, "width": 16, "guidance_scale": 3.0}
    assert_same_only_with_the_same_network(pipeline, (unet, quantized, loaded), **options)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_cast_changes_arithmetic_but_no_grid_and_is_undone_by_another(
    dtype: torch.dtype, saved: Path, calibration: tuple
) -> None:
    exact, rough = edadm.load(saved), edadm.load(saved, dtype=dtype)
    x, t = calibration
    expected, found = exact(x, t).sample, rough(x.to(dtype), t).sample
    assert rough.dtype == found.dtype == dtype
    assert 0 < (found.float() - expected).abs().max() < 0.2 * expected.abs().max()
    for (name, layer), other in zip(
        quantized_layers(rough).items(), quantized_layers(exact).values(), strict=True
    ):
        assert layer.weight.dtype == dtype
        assert torch.equal(layer.weight_quantizer.scale, other.weight_quantizer.scale), name
        assert torch.equal(layer.codes, other.codes), name
    back = exact.to(dtype).to(torch.float32)
    for name, layer in quantized_layers(back).items():
        assert torch.equal(layer.weight, layer.weight_quantizer.values(layer.codes)), name


@torch.no_grad()
def test_loading_in_another_type_warns_of_nothing(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(modeling_utils.logger, "warning", said.append)
    for cast in (lower_for_cuda, lambda unet, dtype: lower(unet, dtype, "simulated")):
        assert cast(edadm.load(saved), torch.float16).dtype == torch.float16
    assert not said


def test_the_integer_backend_computes_nearly_the_same(
    saved: Path, calibration: tuple[Tensor, Tensor]
) -> None:
    simulated, integer = edadm.load(saved), edadm.load(saved, backend="integer")
    expected, found = simulated(*calibration).sample, integer(*calibration).sample
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()
    with pytest.raises(
        EdadmError, match="a network with backend 'integer' cannot be saved; load it with backend='simulated'"
    ):
        integer.save_pretrained(saved.parent / "folder")


def test_integers_are_refused_where_there_are_none(saved: Path) -> None:
    with pytest.raises(EdadmError, match=r"fp32 on a CPU; load with dtype torch\.float32"):
        edadm.load(saved, backend="integer", dtype=torch.bfloat16)
    with pytest.raises(EdadmError, match="no integer arithmetic for the device 'meta'"):
        lower(edadm.load(saved).to("meta"), torch.float32)


def test_no_layer_runs_while_a_network_is_built(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(module: nn.Module, *_: object) -> None:
        raise AssertionError(f"{type(module).__name__} ran")

    monkeypatch.setattr(nn.Module, "__call__", refuse)
    unet = edadm.load(saved)
    assert not unet.training
    assert not any(parameter.requires_grad or parameter.is_meta for parameter in unet.parameters())


def test_an_unknown_backend_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(EdadmError, match="there is no backend 'fp8'; known are simulated, integer"):
        edadm.load(tmp_path / "absent.safetensors", backend="fp8")


def test_a_type_that_no_network_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdadmError, match=r"a network cannot be in torch\.int8; set dtype to torch\.float32"):
        edadm.load(tmp_path / "absent.safetensors", dtype=torch.int8)


def test_absent_files_and_folders_without_a_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"there is no file .*absent\.safetensors; name a quantized checkpoint"
    ):
        edadm.load(str(tmp_path / "absent.safetensors"))
    with pytest.raises(
        CheckpointError,
        match=r"holds no diffusion_pytorch_model\.safetensors; name the file, or a folder that",
    ):
        edadm.load(tmp_path)


def test_the_package_itself_stays_light() -> None:
    program = "import edadm, sys; assert not {'torch', 'diffusers', 'safetensors'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
    with pytest.raises(AttributeError, match="module 'edadm' has no attribute 'lode'"):
        _ = edadm.lode
