"""What trainings write: weights in original layouts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors.torch import save_file
from torch import Tensor

from edadm.artifacts import writing
from edadm.networks.layouts import compvis_autoencoder, compvis_unet, ermongroup
from edadm.networks.settings.architecture import Architecture
from edadm.networks.weights import read_state

State = dict[str, Tensor]
UNET, CONDITION, FIRST_STAGE = "model.diffusion_model.", "cond_stage_model.", "first_stage_model."
_LIGHTNING = "1.4.2"  # the version that CompVis' environment names


def rounded(state: Mapping[str, Tensor]) -> State:
    """Tensors on the CPU as fp32 with the values that fp16 has."""
    return {name: tensor.detach().half().float().cpu() for name, tensor in state.items()}


def inside(state: Mapping[str, Tensor], prefix: str) -> State:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def write_weights(state: Mapping[str, Tensor], output: Path, facts: Mapping[str, Any]) -> None:
    """Writes tensors in fp16, with facts in the metadata."""
    ready = {name: tensor.detach().cpu().half().contiguous() for name, tensor in state.items()}
    with writing(output) as partial:
        save_file(ready, partial, {"edadm": json.dumps(dict(facts))})


def first_stage_in(path: Path) -> State:
    """The first stage of a file in CompVis' layout, by diffusers' names."""
    return compvis_autoencoder.to_diffusers(inside(read_state(path), FIRST_STAGE))


def in_ddim_layout(unet: Mapping[str, Tensor]) -> State:
    """A U-Net's tensors by the names of ermongroup/ddim."""
    return ermongroup.from_diffusers(dict(unet))


def in_compvis_layout(
    unet: Mapping[str, Tensor],
    condition: Mapping[str, Tensor],
    autoencoder: Mapping[str, Tensor],
    architecture: Architecture,
) -> State:
    """The tensors of a latent diffusion model by the names of CompVis/latent-diffusion."""
    parts = {
        UNET: compvis_unet.from_diffusers(dict(unet), architecture),
        CONDITION: dict(condition),
        FIRST_STAGE: compvis_autoencoder.from_diffusers(dict(autoencoder)),
    }
    return {f"{prefix}{name}": tensor for prefix, part in parts.items() for name, tensor in part.items()}


def write_lightning(
    trained: State, averaged: State, alphas_cumprod: Float[Tensor, " timesteps"], step: int, output: Path
) -> None:
    """Writes a checkpoint as CompVis' training with Lightning leaves it: with averages of the U-Net alone.

    Of what else was trained that layout has one version, which is the average here.

    Args:
        trained: from `in_compvis_layout`.
        averaged: the same tensors, averaged.
        alphas_cumprod: alpha-bar of every timestep.
        step: of the training.
        output: the `.ckpt` to write.
    """
    before = torch.cat([alphas_cumprod.new_ones(1), alphas_cumprod[:-1]])
    schedule = {"betas": 1 - alphas_cumprod / before, "alphas_cumprod": alphas_cumprod}
    averages = {
        f"model_ema.{name.removeprefix('model.').replace('.', '')}": tensor
        for name, tensor in averaged.items()
        if name.startswith(UNET)
    }
    counters = {"model_ema.decay": torch.tensor(0.9999), "model_ema.num_updates": torch.tensor(step)}
    own = averaged | {name: tensor for name, tensor in trained.items() if name.startswith(UNET)}
    state = {name: tensor.float() for name, tensor in (schedule | own | averages).items()} | counters
    checkpoint = {
        "epoch": 0,
        "global_step": step,
        "pytorch-lightning_version": _LIGHTNING,
        "state_dict": {name: tensor.contiguous() for name, tensor in state.items()},
        "callbacks": {"ModelCheckpoint": {"monitor": "val/loss_simple_ema", "best_model_score": None}},
        "optimizer_states": [],
        "lr_schedulers": [],
    }
    with writing(output) as partial:
        torch.save(checkpoint, partial)
