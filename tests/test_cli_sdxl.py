"""Stable Diffusion XL through all stages, from a diffusers folder to images of its quantized network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file
from torch import nn

import edadm as package
from edadm.config.schema import Model
from edadm.deploy.checkpoint import read_metadata
from edadm.networks.load import load_condition_network, load_network
from edadm.sampling.denoiser import Denoiser
from edadm.sampling.generate import run_sampler
from edadm.sampling.noise import ImageNoise
from edadm.stages.inputs.model import open_condition

from .networks.sdxl import described, scheduler, told, write_pipeline
from .test_cli_families import assert_images_are_near, up_to_reconstruction

EVALUATION = json.dumps({"images": 2, "batch_size": 2})
Run = tuple[Model, Path, dict[str, nn.Module]]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A folder in which all stages up to reconstruction have run."""
    folder = tmp_path_factory.mktemp("sdxl")
    (folder / "prompts.txt").write_text("\n".join(f"a picture of {number} boats" for number in range(6)))
    parts = write_pipeline(folder / "pipeline")
    model = described(folder / "pipeline", folder / "prompts.txt")
    up_to_reconstruction(model, folder)
    return model, folder, parts


def pipeline_of(parts: dict[str, nn.Module]) -> StableDiffusionXLPipeline:
    pipeline = StableDiffusionXLPipeline(
        **parts, tokenizer=None, tokenizer_2=None, scheduler=scheduler(), add_watermarker=False
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_calibration_rows_carry_all_that_the_network_is_told(stages: Run) -> None:
    _, folder, _ = stages
    rows = load_file(folder / "calibration.safetensors")
    names = ("latents", "timesteps", "steps", "context", "pooled", "time_ids")
    assert {name: len(rows[name]) for name in names} == dict.fromkeys(names, 4)
    assert {f"held_out_{name}" for name in names} == set(rows) - set(names)
    assert torch.equal(rows["latents"][0::2], rows["latents"][1::2])
    for name in ("context", "pooled"):
        assert not rows[name][0::2].any()
        assert len({tuple(row.flatten().tolist()) for row in rows[name][1::2]}) == 2
    assert rows["time_ids"].dtype == torch.int64
    assert rows["time_ids"].tolist() == [[16, 16, 0, 0, 16, 16]] * 4


@torch.no_grad()
def test_the_sampler_ends_where_diffusers_own_pipeline_does(stages: Run) -> None:
    model, folder, parts = stages
    condition = open_condition(model, folder / "condition.safetensors", 2, "cpu")
    network = load_network(model.architecture, folder / "unet.safetensors")
    noise = ImageNoise(3, range(2), model.latent_shape, torch.device("cpu"))
    first = ImageNoise(3, range(2), model.latent_shape, torch.device("cpu")).draw()
    ours = run_sampler(Denoiser(network, condition, 5.0).on([0, 1]), model.sampler, model.schedule, noise)
    pipeline = pipeline_of(parts)
    said, nothing = condition.rows([0, 1]), condition.unconditional()
    theirs = pipeline(
        prompt_embeds=said["context"],
        pooled_prompt_embeds=said["pooled"],
        negative_prompt_embeds=nothing["context"].expand_as(said["context"]),
        negative_pooled_prompt_embeds=nothing["pooled"].expand_as(said["pooled"]),
        height=16,
        width=16,
        latents=first,
        guidance_scale=5.0,
        num_inference_steps=model.sampler.steps,
        output_type="latent",
    ).images
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_images_of_the_quantized_network_are_near_the_float_ones(stages: Run) -> None:
    model, folder, _ = stages
    facts = read_metadata(folder / "quantized.safetensors")
    assert facts["architecture"] == model.architecture.model_dump(mode="json")
    assert_images_are_near(model, folder)


def test_every_unit_learned_and_none_failed(stages: Run) -> None:
    _, folder, _ = stages
    rows = [line.split(",") for line in (folder / "losses.csv").read_text().splitlines()]
    assert all(np.isfinite(float(value)) for row in rows[1:] for value in row[3:] if value)
    names = {row[0] for row in rows[1:]}
    assert {"add_embedding.linear_1", "mid_block.attentions.0.transformer_blocks.1"} <= names


@torch.no_grad()
def test_a_quantized_network_is_called_as_diffusers_calls_it(stages: Run, tmp_path: Path) -> None:
    _, folder, _ = stages
    unet = package.load(folder / "quantized.safetensors")
    unet.save_pretrained(tmp_path / "saved")
    again = type(unet).from_pretrained(tmp_path / "saved")
    rows = told(2)
    added = {"text_embeds": rows["pooled"], "time_ids": rows["time_ids"]}
    given = (torch.ones(2, 4, 8, 8), torch.tensor([3, 900]), rows["context"])
    predicted = [network(*given, added_cond_kwargs=added).sample for network in (unet, again)]
    assert torch.equal(*predicted)
    assert predicted[0].isfinite().all()


@pytest.mark.parametrize("backend", ["simulated", "onednn"])
@torch.no_grad()
def test_diffusers_pipeline_makes_images_with_a_quantized_network(stages: Run, backend: str) -> None:
    _, folder, parts = stages
    unet = package.load(folder / "quantized.safetensors", backend=backend)
    pipeline, said = pipeline_of(parts | {"unet": unet}), told(1)
    with pytest.raises(ValueError, match="vector of length 34, but a vector of 35 was created"):
        pipeline._get_add_time_ids((16, 16), (0, 0), (16, 16), torch.float32, 11)
    layer, own = unet.add_embedding.linear_1, parts["unet"].add_embedding.linear_1
    assert (layer.in_features, layer.out_features) == (own.in_features, own.out_features)
    named = {"prompt_embeds": said["context"], "pooled_prompt_embeds": said["pooled"]}
    first = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    run = {
        "num_inference_steps": 1,
        "guidance_scale": 1.0,
        "height": 16,
        "width": 16,
        "output_type": "latent",
    }
    quantized, exact = (one(**named, **run, latents=first).images for one in (pipeline, pipeline_of(parts)))
    assert 0 < (quantized - exact).abs().mean() < exact.std()


def test_the_condition_network_is_read_from_two_folders(stages: Run) -> None:
    model, folder, parts = stages
    network = load_condition_network(model, folder / "condition.safetensors")
    assert torch.equal(network.second.text_projection.weight, parts["text_encoder_2"].text_projection.weight)
    state = load_file(folder / "condition.safetensors")
    assert {name.partition(".")[0] for name in state} == {"first", "second"}
