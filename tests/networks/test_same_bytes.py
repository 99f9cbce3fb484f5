"""The same weights in any container, layout and precision that holds them become the same file, byte for byte."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import Tensor, nn

from edadm.config.schema import Model
from edadm.networks.autoencoder import build_autoencoder
from edadm.networks.convert import convert_checkpoint
from edadm.networks.settings.architecture import Architecture

from .families import original_checkpoint, random_network, tiny
from .layouts.test_parts import TEXT, old_names
from .original import OriginalUNet

State = dict[str, Tensor]
Write = Callable[[State, State, Path], Path]


def halves(state: State) -> State:
    """Weights that fp16 holds exactly, as published fp16 files do, in fp32."""
    return {
        name: tensor.half().float() if tensor.is_floating_point() else tensor
        for name, tensor in state.items()
    }


def lightning(state: State) -> dict[str, Any]:
    """What PyTorch Lightning 1.x saves beside a state dict, numpy scalars and all."""
    callbacks = {
        "ModelCheckpoint": {
            "best_model_score": np.float64(0.5),
            "dtype": np.dtype("float32"),
            "scores": np.arange(3.0),
        }
    }
    optimizer = {
        "state": {0: {"step": 5, "exp_avg": torch.zeros(3)}},
        "param_groups": [{"lr": 2e-4, "params": [0]}],
    }
    return {
        "epoch": 3,
        "state_dict": state,
        "callbacks": callbacks,
        "optimizer_states": [optimizer],
        "hyper_parameters": {"a": 1},
    }


def folder(parts: dict[str, State], path: Path) -> Path:
    """A folder of diffusers <= 0.14 with the fp16 variant alone."""
    for name, state in parts.items():
        stem = "model" if name == "text_encoder" else "diffusion_pytorch_model"
        (path / name).mkdir(parents=True)
        own = {
            key: tensor.half() if tensor.is_floating_point() else tensor
            for key, tensor in old_names(state, True).items()
        }
        save_file(
            {key: tensor.contiguous() for key, tensor in own.items()},
            path / name / f"{stem}.fp16.safetensors",
        )
    return path


def list_of_five(raw: State, averaged: State, path: Path) -> Path:
    torch.save([raw, lightning({})["optimizer_states"][0], 7, 790000, averaged], path / "ckpt.pth")
    return path / "ckpt.pth"


def list_of_parallel(raw: State, averaged: State, path: Path) -> Path:
    both = ({f"module.{name}": tensor for name, tensor in state.items()} for state in (raw, averaged))
    return list_of_five(*both, path)


def lightning_with_averages(raw: State, averaged: State, path: Path) -> Path:
    state = {f"model.{name}": tensor for name, tensor in raw.items()}
    state |= {f"model_ema.{name.replace('.', '')}": tensor for name, tensor in averaged.items()}
    torch.save(
        lightning(state | {"model_ema.decay": torch.tensor(0.9999), "betas": torch.zeros(3)}),
        path / "last.ckpt",
    )
    return path / "last.ckpt"


def lightning_with_two_models(raw: State, averaged: State, path: Path) -> Path:
    state = {f"model.{name}": tensor for name, tensor in raw.items()} | {
        f"ema_model.{name}": tensor for name, tensor in averaged.items()
    }
    torch.save(lightning(state), path / "last.ckpt", _use_new_zipfile_serialization=False)
    return path / "last.ckpt"


def half_file(raw: State, averaged: State, path: Path) -> Path:
    save_file({name: tensor.half() for name, tensor in averaged.items()}, path / "ema_fp16.safetensors")
    return path / "ema_fp16.safetensors"


DDIM: list[Write] = [
    list_of_five,
    list_of_parallel,
    lightning_with_averages,
    lightning_with_two_models,
    half_file,
]


@pytest.mark.parametrize("write", DDIM, ids=lambda write: write.__name__)
def test_an_unconditional_pixel_model_becomes_the_same_file(
    write: Write, model: Model, architecture: Architecture, tmp_path: Path
) -> None:
    raw, averaged = (halves(random_network(OriginalUNet(architecture), seed).state_dict()) for seed in (1, 2))
    given = model.model_copy(update={"checkpoint": str(write(raw, averaged, tmp_path))})
    torch.save(averaged, tmp_path / "plain.pth")
    expected = save(convert_checkpoint(model.model_copy(update={"checkpoint": str(tmp_path / "plain.pth")})))
    assert save(convert_checkpoint(given)) == expected
    old = folder({"unet": convert_checkpoint(given)}, tmp_path / "folder")
    assert save(convert_checkpoint(model.model_copy(update={"checkpoint": str(old)}))) == expected


@pytest.fixture(scope="module", params=["ldm4_bedroom", "sd14_coco"])
def latent(request: pytest.FixtureRequest) -> tuple[Model, State]:
    model = tiny(request.param, ema="auto")
    return model, halves(original_checkpoint(model))


def single_half(state: State, path: Path) -> Path:
    """As CivitAI holds them: averaged weights in the place of the raw ones, fp16, nothing else."""
    own = {
        name: tensor
        for name, tensor in state.items()
        if not name.startswith("model_ema.") and ".loss." not in name and "." in name
    }
    for name in own:
        if name.startswith("model.diffusion_model."):
            own[name] = state["model_ema." + name.removeprefix("model.").replace(".", "")]
    save_file(
        {
            name: tensor.half().contiguous() if tensor.is_floating_point() else tensor
            for name, tensor in own.items()
        },
        path,
    )
    return path


def forms_of(model: Model, state: State, path: Path) -> dict[str, Path]:
    """The same weights as people hold them."""
    torch.save({"state_dict": state}, path / "model.ckpt")
    torch.save(lightning(state), path / "lightning.ckpt")
    whole = model.model_copy(update={"checkpoint": str(path / "model.ckpt")})
    parts = {"unet": convert_checkpoint(whole)}
    parts["vae" if model.conditioning else "vqvae"] = convert_checkpoint(whole, "autoencoder")
    parts = {
        name: {key: tensor for key, tensor in part.items() if key != "scale_factor"}
        for name, part in parts.items()
    }
    if model.conditioning:
        prefix = "cond_stage_model.transformer."
        parts["text_encoder"] = {
            name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)
        }
        assert any(name.startswith(TEXT) for name in state)
    return {
        "ckpt": path / "model.ckpt",
        "lightning": path / "lightning.ckpt",
        "folder": folder(parts, path / "folder"),
        "single": single_half(state, path / "civitai.safetensors"),
    }


def test_a_latent_model_becomes_the_same_files(latent: tuple[Model, State], tmp_path: Path) -> None:
    model, state = latent
    forms = forms_of(model, state, tmp_path)
    for part in model.parts:
        found = {
            name: save(convert_checkpoint(model.model_copy(update={"checkpoint": str(path)}), part))
            for name, path in forms.items()
        }
        assert len(set(found.values())) == 1, {name: hash(content) for name, content in found.items()}


def test_a_vae_becomes_the_same_file_from_its_own_folder(latent: tuple[Model, State], tmp_path: Path) -> None:
    model, _ = latent
    assert model.autoencoder is not None
    network: nn.Module = random_network(build_autoencoder(model.autoencoder), 9)
    weights = halves(network.state_dict())
    found = set()
    for name, held in (
        ("new", weights),
        ("old", old_names(weights, True)),
        ("mixed", old_names(weights, False, mixed=True)),
    ):
        save_file(
            {key: tensor.contiguous().half() for key, tensor in held.items()},
            tmp_path / f"{name}.safetensors",
        )
        own = model.autoencoder.model_copy(update={"checkpoint": str(tmp_path / f"{name}.safetensors")})
        given = model.model_copy(update={"autoencoder": own, "checkpoint": "absent.ckpt"})
        found.add(save(convert_checkpoint(given, "autoencoder")))
    assert len(found) == 1
