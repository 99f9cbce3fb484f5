"""Stable Diffusion 3 through all stages, from a diffusers folder to images of its quantized network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline
from safetensors.torch import load_file
from torch import nn

import edadm as package
from edadm.config.schema import Model
from edadm.deploy.export.formats import export
from edadm.networks.families import network_call
from edadm.networks.load import load_network
from edadm.sampling.denoiser import Denoiser
from edadm.sampling.generate import run_sampler
from edadm.sampling.noise import ImageNoise
from edadm.sampling.schedule import sampler_timesteps
from edadm.stages.inputs.model import open_condition
from edadm.stages.inputs.unet import open_unet

from .networks.mmdit import described, rows_of, scheduler, write_pipeline
from .networks.sdxl import TOKENS
from .test_cli_families import assert_images_are_near, up_to_reconstruction

LAYERS = {
    "pos_embed.proj": {"weights": 8, "activations": 8},
    "context_embedder": {"weights": 8, "activations": 8},
    "proj_out": {"weights": 8, "activations": None},
}
CPU = torch.device("cpu")
Run = tuple[Model, Path, dict[str, nn.Module]]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A folder in which all stages up to reconstruction have run."""
    folder = tmp_path_factory.mktemp("mmdit")
    (folder / "prompts.txt").write_text("\n".join(f"a picture of {number} boats" for number in range(6)))
    parts = write_pipeline(folder / "pipeline")
    model = described(folder / "pipeline", folder / "prompts.txt")
    up_to_reconstruction(model, folder, layers=LAYERS)
    return model, folder, parts


def pipeline_of(parts: dict[str, nn.Module], **changes: nn.Module) -> StableDiffusion3Pipeline:
    nothing = dict.fromkeys(("tokenizer", "tokenizer_2", "text_encoder_3", "tokenizer_3"))
    pipeline = StableDiffusion3Pipeline(**parts | changes, **nothing, scheduler=scheduler())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def images_of(pipeline: StableDiffusion3Pipeline, model: Model, folder: Path) -> torch.Tensor:
    condition = open_condition(model, folder / "condition.safetensors", 2, "cpu")
    said, nothing = condition.rows([0, 1]), condition.unconditional()
    found: torch.Tensor = pipeline(
        prompt_embeds=said["context"],
        pooled_prompt_embeds=said["pooled"],
        negative_prompt_embeds=nothing["context"].expand_as(said["context"]),
        negative_pooled_prompt_embeds=nothing["pooled"].expand_as(said["pooled"]),
        height=16,
        width=16,
        latents=ImageNoise(3, range(2), model.latent_shape, CPU).draw(),
        guidance_scale=4.5,
        num_inference_steps=model.sampler.steps,
        output_type="latent",
    ).images
    return found


def test_calibration_rows_carry_fractions_of_timesteps_and_all_that_is_told(stages: Run) -> None:
    model, folder, _ = stages
    rows = load_file(folder / "calibration.safetensors")
    visited = sampler_timesteps(model.sampler, model.schedule)
    assert rows["timesteps"].dtype == torch.float32
    assert set(rows["timesteps"].tolist()) <= set(visited)
    assert any(timestep != int(timestep) for timestep in visited)
    assert torch.equal(rows["latents"][0::2], rows["latents"][1::2])
    assert rows["context"].shape[1:] == (2 * TOKENS, 24)
    assert rows["pooled"][1::2].std() > 0.1
    assert torch.equal(rows["pooled"][0], rows["pooled"][2])


def test_features_are_the_patches_of_the_middle(stages: Run) -> None:
    import zarr

    store = zarr.open_group(stages[1] / "0.zarr", mode="r")
    assert store["feature_elements"][:].tolist() == [6 * 16 * 32]
    assert store["distance"][0][0, 2] > store["distance"][0][0, 1] > 0


@torch.no_grad()
def test_the_sampler_ends_where_diffusers_own_pipeline_does(stages: Run) -> None:
    model, folder, parts = stages
    condition = open_condition(model, folder / "condition.safetensors", 2, "cpu")
    network = load_network(model.architecture, folder / "unet.safetensors")
    noise = ImageNoise(3, range(2), model.latent_shape, CPU)
    ours = run_sampler(Denoiser(network, condition, 4.5).on([0, 1]), model.sampler, model.schedule, noise)
    theirs = images_of(pipeline_of(parts), model, folder)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.long
def test_images_of_the_quantized_network_are_near_the_float_ones(stages: Run) -> None:
    model, folder, _ = stages
    assert_images_are_near(model, folder, "onednn")


def test_every_unit_learned(stages: Run) -> None:
    rows = [line.split(",") for line in (stages[1] / "losses.csv").read_text().splitlines()]
    blocks = [f"transformer_blocks.{block}" for block in range(2)]
    names = ["pos_embed.proj", "context_embedder", *blocks, "norm_out.linear", "proj_out"]
    assert list(dict.fromkeys(row[0] for row in rows[1:])) == names
    assert all(np.isfinite(float(value)) for row in rows[1:] for value in row[3:] if value)


@torch.no_grad()
def test_a_loaded_network_samples_in_diffusers_pipeline_and_is_saved_and_read_again(
    stages: Run, tmp_path: Path
) -> None:
    model, folder, parts = stages
    file, rows = folder / "quantized.safetensors", rows_of(3)
    exact = network_call(open_unet(model.architecture, folder / "unet.safetensors", "cpu"), rows)
    simulated, integers = package.load(file), package.load(file, backend="onednn")
    expected = network_call(simulated, rows)
    apart = (expected - exact).abs().mean()
    assert 0 < apart < exact.std()
    assert (network_call(integers, rows) - expected).abs().mean() < apart / 5
    made = images_of(pipeline_of(parts, transformer=simulated), model, folder)
    full = images_of(pipeline_of(parts), model, folder)
    assert 0 < (made - full).abs().mean() < full.std()
    simulated.save_pretrained(tmp_path / "saved")
    again = type(simulated).from_pretrained(tmp_path / "saved")
    assert torch.equal(network_call(again, rows), expected)
    export(file, tmp_path / "plain", "diffusers", "fp32")
    plain = SD3Transformer2DModel.from_pretrained(tmp_path / "plain").eval()
    weight = simulated.transformer_blocks[1].ff.net[2].weight
    assert torch.equal(plain.transformer_blocks[1].ff.net[2].weight, weight)
