"""DiT through all stages, from a diffusers folder to images of its quantized network."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel
from safetensors.torch import load_file

import edadm as package
from edadm.config.schema import Model
from edadm.deploy.export.formats import export
from edadm.errors import EdadmError
from edadm.networks.families import network_call
from edadm.networks.load import load_network
from edadm.sampling.denoiser import Denoiser
from edadm.sampling.generate import run_sampler
from edadm.sampling.noise import ImageNoise
from edadm.stages.inputs.model import open_condition
from edadm.stages.inputs.unet import open_unet

from .networks.dit import CLASSES, described, rows_of, write_pipeline
from .test_cli_families import assert_images_are_near, up_to_reconstruction

LAYERS = {
    "pos_embed.proj": {"weights": 8, "activations": 8},
    "proj_out_2": {"weights": 8, "activations": None},
}
EVALUATION = json.dumps({"images": 2, "batch_size": 2})
CPU = torch.device("cpu")
Run = tuple[Model, Path]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A folder in which all stages up to reconstruction have run."""
    folder = tmp_path_factory.mktemp("dit")
    write_pipeline(folder / "pipeline")
    model = described(folder / "pipeline")
    up_to_reconstruction(model, folder, layers=LAYERS)
    return model, folder


def test_calibration_rows_carry_classes_and_rows_without(stages: Run) -> None:
    _, folder = stages
    rows = load_file(folder / "calibration.safetensors")
    assert rows["labels"].dtype == torch.int64
    assert rows["labels"][0::2].tolist() == [[CLASSES]] * 2
    assert all(label < CLASSES for label in rows["labels"][1::2].flatten().tolist())
    assert torch.equal(rows["latents"][0::2], rows["latents"][1::2])


def test_features_are_the_tokens_of_the_middle(stages: Run) -> None:
    import zarr

    _, folder = stages
    store = zarr.open_group(folder / "0.zarr", mode="r")
    assert store["feature_rows"][:].tolist() == [6]  # three runs, with a class and without
    assert store["feature_elements"][:].tolist() == [6 * 16 * 32]
    distance, dissimilarity = store["distance"][0], store["dissimilarity"][0]
    assert distance[0, 2] > distance[0, 1] > 0
    assert 0 < dissimilarity[0, 2] <= 2 * 6 * 16  # a cosine for each of 16 patches


@torch.no_grad()
def test_the_sampler_ends_where_diffusers_scheduler_does(stages: Run) -> None:
    model, folder = stages
    condition = open_condition(model, None, 2, CPU)
    network = load_network(model.architecture, folder / "unet.safetensors")
    noise = ImageNoise(3, range(2), model.latent_shape, CPU)
    first = ImageNoise(3, range(2), model.latent_shape, CPU).draw()
    ours = run_sampler(Denoiser(network, condition, 4.0).on([0, 1]), model.sampler, model.schedule, noise)
    theirs = DiTTransformer2DModel.from_pretrained(folder / "pipeline" / "transformer").eval()
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=model.sampler.spacing == "uniform")
    scheduler.set_timesteps(model.sampler.steps)
    latents, labels = first, torch.tensor([*condition.labels[:2], CLASSES, CLASSES])
    for t in scheduler.timesteps:
        given, without = theirs(latents.repeat(2, 1, 1, 1), t.expand(4), labels).sample[:, :4].chunk(2)
        latents = scheduler.step(without + 4.0 * (given - without), t, latents).prev_sample
    torch.testing.assert_close(ours, latents, rtol=1e-3, atol=1e-3)


def test_images_of_the_quantized_network_are_near_the_float_ones(stages: Run) -> None:
    model, folder = stages
    assert_images_are_near(model, folder, "onednn")


def test_every_unit_learned(stages: Run) -> None:
    _, folder = stages
    rows = [line.split(",") for line in (folder / "losses.csv").read_text().splitlines()]
    names = ["pos_embed.proj", "transformer_blocks.0", "transformer_blocks.1", "proj_out_1", "proj_out_2"]
    assert list(dict.fromkeys(row[0] for row in rows[1:])) == names
    assert all(np.isfinite(float(value)) for row in rows[1:] for value in row[3:] if value)


@torch.no_grad()
def test_integers_are_the_simulated_network_and_others_are_refused(stages: Run) -> None:
    model, folder = stages
    file, rows = folder / "quantized.safetensors", rows_of(3)
    exact = network_call(open_unet(model.architecture, folder / "unet.safetensors", "cpu"), rows)
    simulated, integers = package.load(file), package.load(file, backend="onednn")
    expected = network_call(simulated, rows)
    apart = (expected - exact).abs().mean()
    assert 0 < apart < exact.std()
    assert (network_call(integers, rows) - expected).abs().mean() < apart / 5
    larger = {**rows.tensors, "latents": torch.zeros(3, 4, 16, 16)}
    with pytest.warns(UserWarning, match="calibrated with latents of 8 x 8"):
        simulated(larger["latents"], rows.timesteps, rows.tensors["labels"][:, 0])
    assert simulated.transformer_blocks[0].attn1.processor.most_keys == 16


@torch.no_grad()
def test_a_quantized_network_is_saved_and_read_again_by_both(stages: Run, tmp_path: Path) -> None:
    _, folder = stages
    network, rows = package.load(folder / "quantized.safetensors"), rows_of(2)
    network.save_pretrained(tmp_path / "saved")
    again = type(network).from_pretrained(tmp_path / "saved")
    given = (rows.latents, rows.timesteps, rows.tensors["labels"][:, 0])
    assert torch.equal(network(*given).sample, again(*given).sample)
    export(folder / "quantized.safetensors", tmp_path / "plain", "diffusers", "fp32")
    plain = DiTTransformer2DModel.from_pretrained(tmp_path / "plain").eval()
    assert not any(name.endswith(".codes") for name in plain.state_dict())
    weight = network.transformer_blocks[1].ff.net[2].weight
    assert torch.equal(plain.transformer_blocks[1].ff.net[2].weight, weight)


def test_a_preset_of_other_classes_than_the_network_is_refused(stages: Run) -> None:
    from edadm.config.load import load_config

    model, _ = stages
    told = {"kind": "classes", "classes": 5, "guidance": 4.0}
    settings = model.model_dump(mode="json") | {"conditioning": told}
    presets = load_config()
    variant = f"{next(iter(presets.calibrations))}/dit_w8a8/{next(iter(presets.reconstructions))}"
    run = {"models": {"mine": settings}, "runs": [{"model": "mine", "variants": [variant]}]}
    with pytest.raises(EdadmError, match="classes is 5, and the network embeds 10; make them equal"):
        load_config(run)
