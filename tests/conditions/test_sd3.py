"""What Stable Diffusion 3 is told of an image, beside diffusers' own pipeline."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from pydantic import ValidationError
from safetensors.torch import save_file

from edadm.conditions.condition import Condition, make_condition
from edadm.config.described.folder import describe_folder
from edadm.config.schema import Model
from edadm.errors import EdadmError
from edadm.networks.convert import convert_checkpoint
from edadm.networks.load import load_condition_network, load_decoder
from edadm.networks.settings.parts import Conditioning

from ..networks.mmdit import described, scheduler, write_pipeline
from ..networks.sdxl import TOKENS
from .test_sdxl import PROMPTS, Tokenizer

Made = tuple[Model, Path, Condition, StableDiffusion3Pipeline]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("sd3")
    parts = write_pipeline(folder)
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    model = described(folder, folder / "prompts.txt")
    save_file(convert_checkpoint(model, "condition"), folder / "condition.safetensors")
    assert model.conditioning is not None
    network = load_condition_network(model, folder / "condition.safetensors")
    condition = make_condition(network, model.conditioning, 2)
    nothing = dict.fromkeys(("tokenizer", "tokenizer_2", "text_encoder_3", "tokenizer_3"))
    pipeline = StableDiffusion3Pipeline(**parts, **nothing, scheduler=scheduler())
    pipeline.tokenizer, pipeline.tokenizer_2 = Tokenizer("end_of_text"), Tokenizer("zero")
    pipeline.tokenizer_max_length = TOKENS
    return model, folder, condition, pipeline


@torch.no_grad()
def test_a_prompt_is_told_as_diffusers_tells_it_without_its_third_text_encoder(made: Made) -> None:
    _, _, condition, pipeline = made
    rows, nothing = condition.rows([0, 1]), condition.unconditional()
    context, without, pooled, pooled_without = pipeline.encode_prompt(
        PROMPTS, None, None, device="cpu", max_sequence_length=TOKENS
    )
    assert context.shape == (2, 2 * TOKENS, 24)
    assert pooled.std() > 0.1
    torch.testing.assert_close(rows["context"], context, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(rows["pooled"], pooled, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(nothing["context"], without[:1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(nothing["pooled"], pooled_without[:1], rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_latents_are_scaled_and_shifted_back(made: Made) -> None:
    model, folder, _, pipeline = made
    assert model.autoencoder is not None
    assert (model.autoencoder.shift, model.autoencoder.quant_conv) == (0.25, False)
    save_file(convert_checkpoint(model, "autoencoder"), folder / "autoencoder.safetensors")
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    decoded = load_decoder(model, folder / "autoencoder.safetensors")(latents)
    expected = pipeline.vae.eval().decode(latents / 1.5 + 0.25).sample
    torch.testing.assert_close(decoded, expected, rtol=1e-4, atol=1e-5)


def test_the_folder_says_what_is_left_out_and_open(made: Made) -> None:
    _, folder, *_ = made
    found = describe_folder(folder)
    assert found.settings["conditioning"]["empty_tokens"] == 256
    assert found.settings["prediction"] == "flow"
    assert found.settings["sampler"] == {
        "method": "flow_euler",
        "steps": 28,
        "spacing": "linspace",
        "shift": 3.0,
    }
    assert any(
        "text_encoder_3 (T5) is left out: the network is told zeros" in said for said in found.left_open
    )


def test_projections_of_other_widths_and_dynamic_shifts_are_read(made: Made, tmp_path: Path) -> None:
    import json
    import shutil

    shutil.copytree(made[1], tmp_path / "p")
    file = tmp_path / "p" / "scheduler" / "scheduler_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1}))
    sampler = describe_folder(tmp_path / "p").settings["sampler"]
    assert sampler["dynamic_shift"] == {
        "tokens": 16,
        "base_shift": 0.5,
        "max_shift": 1.0,
        "base_tokens": 256,
        "max_tokens": 4096,
        "kind": "exponential",
    }
    file.write_text(json.dumps(config | {"use_karras_sigmas": True}))
    with pytest.raises(EdadmError, match="use_karras_sigmas: true, and only shifted levels of noise"):
        describe_folder(tmp_path / "p")
    file.write_text(json.dumps(config))
    file = tmp_path / "p" / "text_encoder" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"projection_dim": 6}))
    with pytest.raises(EdadmError, match="projection_dim: 6, and only projections as wide as hidden_size"):
        describe_folder(tmp_path / "p")


def test_a_setting_that_the_kind_needs_is_named() -> None:
    with pytest.raises(ValidationError, match="the kind 'sd3' needs second_encoder"):
        Conditioning.model_validate({"kind": "sd3"})
