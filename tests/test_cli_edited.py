"""Stable Diffusion's relatives through all stages and in diffusers' own pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import edadm as package
from edadm.conditions.image import mask_of, pixels_of
from edadm.config.schema import Model
from edadm.networks.load import load_network
from edadm.sampling.denoiser import Denoiser
from edadm.sampling.generate import run_sampler
from edadm.sampling.noise import ImageNoise
from edadm.stages.inputs.model import open_condition, open_prediction

from .networks.edited import (
    CHANNELS,
    REFINER,
    VELOCITY,
    described,
    pipeline_of,
    with_means,
    write_images,
    write_pipeline,
)
from .test_cli_families import assert_images_are_near, up_to_reconstruction

Run = tuple[str, Model, Path, dict[str, nn.Module]]


@pytest.fixture(scope="module", params=[*CHANNELS, VELOCITY, pytest.param(REFINER, marks=pytest.mark.long)])
def stages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A folder in which all stages up to reconstruction have run."""
    kind, folder = request.param, tmp_path_factory.mktemp(request.param)
    (folder / "prompts.txt").write_text("\n".join(f"a picture of {number} boats" for number in range(3)))
    parts = write_pipeline(kind, folder / "pipeline")
    model = described(folder / "pipeline", folder / "prompts.txt", write_images(folder / "images", 3))
    up_to_reconstruction(model, folder)
    return kind, model, folder, parts


def given(kind: str, folder: Path, indices: list[int]) -> dict[str, Any]:
    """What diffusers' own pipeline is given of images: pixels in [0, 1], and masks of pixels."""
    if kind == VELOCITY:
        return {"height": 16, "width": 16}
    pixels = torch.stack([pixels_of(folder / "images" / f"{index}.png", 16) for index in indices])
    named: dict[str, Any] = {"image": (pixels + 1) / 2}
    if kind == REFINER:  # two of ten steps
        return named | {"strength": 0.2, "num_inference_steps": 10}
    if kind == "instruct_pix2pix":
        return named | {"image_guidance_scale": 1.5}
    masks = torch.stack([mask_of(index, 8, 1234) for index in indices])
    whole = masks.repeat_interleave(2, 2).repeat_interleave(2, 3)
    return named | {"mask_image": whole, "strength": 1.0, "height": 16, "width": 16}


def latents_of(pipeline: Any, kind: str, model: Model, folder: Path) -> torch.Tensor:
    """Final latents of two images by diffusers' own pipeline, from our noise and texts."""
    condition = open_condition(model, folder / "condition.safetensors", 2, "cpu")
    said, nothing = condition.rows([0, 1]), condition.unconditional()
    first = ImageNoise(3, range(2), model.latent_shape, torch.device("cpu")).draw()
    named = {
        "prompt_embeds": said["context"],
        "negative_prompt_embeds": nothing["context"].expand_as(said["context"]),
        "guidance_scale": 7.5,
        "num_inference_steps": 3,
        "output_type": "latent",
    }
    if kind == REFINER:
        named["pooled_prompt_embeds"] = said["pooled"]
        named["negative_pooled_prompt_embeds"] = nothing["pooled"].expand_as(said["pooled"])
    else:
        named["latents"] = first
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"{type(pipeline).__module__}.randn_tensor", lambda *_, **__: first)
        return pipeline(**(named | given(kind, folder, [0, 1]))).images


def test_calibration_rows_carry_images(stages: Run) -> None:
    kind, _, folder, _ = stages
    rows = load_file(folder / "calibration.safetensors")
    each = 3 if kind == "instruct_pix2pix" else 2
    names = ("latents", "timesteps", "steps", "context")
    own = {REFINER: ("pooled", "time_ids", "score"), VELOCITY: ()}
    names += own.get(kind, ("image",))
    assert {name: len(rows[name]) for name in names} == dict.fromkeys(names, 2 * each)
    assert {f"held_out_{name}" for name in names} == set(rows) - set(names)
    latents = rows["latents"].unflatten(0, (2, each))
    assert torch.equal(latents, latents[:, :1].expand_as(latents))
    context = rows["context"].unflatten(0, (2, each))
    assert torch.equal(context[0, 0], context[1, 0])
    assert not torch.equal(context[0, -1], context[1, -1])
    if kind == REFINER:
        assert rows["timesteps"].max() < 200
        assert rows["score"].flatten().tolist() == [2.5, 6.0] * 2
        assert rows["time_ids"].tolist() == [[16, 16, 0, 0]] * 4
        return
    if kind == VELOCITY:
        return
    image = rows["image"].unflatten(0, (2, each))
    assert not torch.equal(image[0, -1], image[1, -1])
    if each == 2:
        assert torch.equal(image[:, 0], image[:, 1])  # guidance drops the text alone
        assert rows["image"][:, 0].unique().tolist() in ([0, 1], [1])
        return
    assert not image[:, 0].any()
    assert torch.equal(image[:, 1], image[:, 2])
    assert torch.equal(context[:, 0], context[:, 1])


@torch.no_grad()
def test_the_sampler_ends_where_diffusers_own_pipeline_does(stages: Run) -> None:
    kind, model, folder, parts = stages
    condition = open_condition(model, folder / "condition.safetensors", 2, "cpu")
    network = load_network(model.architecture, folder / "unet.safetensors")
    noise = ImageNoise(3, range(2), model.latent_shape, torch.device("cpu"))
    denoise = Denoiser(network, condition, 7.5, prediction=open_prediction(model)).on([0, 1])
    ours = run_sampler(denoise, model.sampler, model.schedule, noise)
    pipeline = pipeline_of(kind, parts | {"vae": with_means(parts["vae"])})
    theirs = latents_of(pipeline, kind, model, folder)
    assert ours.std() > 0.5
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * ours.std().item())


@pytest.mark.parametrize("backend", ["simulated", "onednn"])
@torch.no_grad()
def test_diffusers_pipeline_makes_images_with_a_quantized_network(stages: Run, backend: str) -> None:
    kind, model, folder, parts = stages
    unet = package.load(folder / "quantized.safetensors", backend=backend)
    assert unet.config["in_channels"] == CHANNELS.get(kind, 4)
    parts = parts | {"vae": with_means(parts["vae"])}
    exact = latents_of(pipeline_of(kind, parts), kind, model, folder)
    found = latents_of(pipeline_of(kind, parts | {"unet": unet}), kind, model, folder)
    assert 0 < (found - exact).abs().mean() < exact.std()


def test_images_of_integers_are_those_of_the_simulation(stages: Run) -> None:
    _, model, folder, _ = stages
    assert_images_are_near(model, folder)


def test_the_noise_and_the_image_have_grids_of_their_own(stages: Run) -> None:
    kind, _, folder, _ = stages
    unet = package.load(folder / "quantized.safetensors")
    channels = CHANNELS.get(kind, 4)
    if channels == 4:
        assert len(unet.conv_in.input_quantizer.segments) == 1
        return
    assert unet.conv_in.input_quantizer.segments == (4, channels - 4)
    assert unet.conv_in.input_quantizer.scale.unique().numel() == 2
