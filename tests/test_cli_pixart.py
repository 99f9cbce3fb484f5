"""PixArt through all stages, from a diffusers folder to images of its quantized network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import PixArtAlphaPipeline, PixArtTransformer2DModel
from safetensors.torch import load_file

import edadm as package
from edadm.config.schema import Model
from edadm.deploy.export.formats import export
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows
from edadm.stages.inputs.model import open_condition
from edadm.stages.inputs.unet import open_unet
from edadm.turnkey.results import write_folder

from .networks.pixart import SIZED, TOKENS, call, described, rows_of, write_pipeline
from .test_cli_families import assert_images_are_near, up_to_reconstruction

LAYERS = {
    "pos_embed.proj": {"weights": 8, "activations": 8},
    "adaln_single.linear": {"weights": 8, "activations": 8},
    "proj_out": {"weights": 8, "activations": None},
}
PROMPTS = ("a picture of boats", "A boat ", "a picture of a cat")
CPU = torch.device("cpu")
pytestmark = pytest.mark.long  # half a minute; tests/networks/transformers has what is told, and integers
Run = tuple[Model, Path]


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A folder in which all stages up to reconstruction have run, of a network that is told sizes."""
    folder = tmp_path_factory.mktemp("pixart")
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    write_pipeline(folder / "pipeline", SIZED)
    model = described(folder / "pipeline", folder / "prompts.txt")
    up_to_reconstruction(model, folder, layers=LAYERS)
    return model, folder


def test_calibration_rows_carry_states_masks_and_sizes(stages: Run) -> None:
    _, folder = stages
    rows = load_file(folder / "calibration.safetensors")
    assert rows["context"].shape == (4, TOKENS, 16)
    assert rows["context_mask"].sum(1).tolist()[0::2] == [1, 1]  # of no text, its end
    counts = rows["context_mask"].sum(1).tolist()[1::2]
    assert set(counts) < {5, 7, 9}
    assert len(set(counts)) == 2
    assert rows["time_ids"].tolist() == [[16, 16]] * 4


@torch.no_grad()
def test_a_prompt_is_told_as_diffusers_pipeline_tells_it(stages: Run) -> None:
    from transformers import T5EncoderModel

    model, folder = stages
    condition = open_condition(model, folder / "condition.safetensors", 3, CPU)
    told = condition.rows([1])
    ids = torch.tensor([[3, 7, 9, 22, 8, 27, 1, 0, 0, 0, 0, 0]])  # _a _ b o a t, and the end
    mask = (ids != 0).long()
    encoder = T5EncoderModel.from_pretrained(folder / "pipeline" / "text_encoder").eval()
    expected = encoder(ids, attention_mask=mask).last_hidden_state
    assert told["context_mask"].tolist() == mask.tolist()
    torch.testing.assert_close(told["context"], expected)


@torch.no_grad()
def test_tokens_that_do_not_count_change_nothing_in_any_network(stages: Run) -> None:
    model, folder = stages
    file, rows = folder / "quantized.safetensors", rows_of(3, sized=True)
    other = dict(rows.tensors)
    hidden = (1 - other["context_mask"])[..., None]
    other["context"] = other["context"] + 50 * hidden
    wrong = {**other, "context_mask": torch.ones(3, TOKENS)}
    exact = open_unet(model.architecture, folder / "unet.safetensors", "cpu")
    networks = [exact, package.load(file), package.load(file, backend="onednn")]
    found = [network_call(network, rows) for network in networks]
    for network, expected in zip(networks, found, strict=True):
        torch.testing.assert_close(network_call(network, Rows(other)), expected, rtol=0, atol=1e-6)
        assert (network_call(network, Rows(wrong)) - expected)[1:].abs().max() > 1e-2
    apart = (found[1] - found[0]).abs().mean()
    assert 0 < apart < found[0].std()
    assert (found[2] - found[1]).abs().mean() < apart / 5


def test_images_of_the_quantized_network_are_near_the_float_ones(stages: Run) -> None:
    model, folder = stages
    assert_images_are_near(model, folder, "onednn")


def _pipeline(folder: Path, **parts: Any) -> Any:
    """diffusers' own."""
    pipeline = PixArtAlphaPipeline.from_pretrained(folder, **parts)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.transformer.register_to_config(sample_size=128)  # by which it sees that sizes are told
    return pipeline


@torch.no_grad()
def test_diffusers_pipeline_takes_the_network_and_it_is_saved_and_read_again(
    stages: Run, tmp_path: Path
) -> None:
    model, folder = stages
    told = open_condition(model, folder / "condition.safetensors", 1, CPU)
    given, nothing = told.rows([0]), told.unconditional()
    settings: dict[str, Any] = {
        "prompt_embeds": given["context"],
        "prompt_attention_mask": given["context_mask"],
        "negative_prompt_embeds": nothing["context"],
        "negative_prompt_attention_mask": nothing["context_mask"],
        "negative_prompt": None,
        "num_inference_steps": 2,
        "use_resolution_binning": False,
        "height": 16,
        "width": 16,
        "output_type": "latent",
    }
    network = package.load(folder / "quantized.safetensors")
    nothing_else: dict[str, Any] = {"text_encoder": None, "tokenizer": None}  # which needs sentencepiece
    pipeline = _pipeline(folder / "pipeline", transformer=network, **nothing_else)
    made = pipeline(**settings, generator=torch.Generator().manual_seed(1)).images
    assert made.shape == (1, 4, 8, 8)
    assert made.isfinite().all()
    network.register_to_config(sample_size=8)
    pipeline.save_pretrained(tmp_path / "saved")
    again = _pipeline(tmp_path / "saved", **nothing_else)
    assert type(again.transformer) is type(network)
    assert torch.equal(again(**settings, generator=torch.Generator().manual_seed(1)).images, made)
    export(folder / "quantized.safetensors", tmp_path / "plain", "diffusers", "fp32")
    plain = PixArtTransformer2DModel.from_pretrained(tmp_path / "plain").eval()
    weight = network.transformer_blocks[1].attn2.to_v.weight
    assert torch.equal(plain.transformer_blocks[1].attn2.to_v.weight, weight)
    rows = rows_of(2, sized=True)
    expected = network_call(open_unet(model.architecture, folder / "unet.safetensors", "cpu"), rows)
    assert (call(plain, rows)[:, :4] - expected).abs().mean() < expected.std()


@torch.no_grad()
def test_the_folder_of_quantize_draws_from_a_prompt_without_sentencepiece(
    stages: Run, tmp_path: Path
) -> None:
    model, folder = stages
    write_folder(folder / "pipeline", folder / "quantized.safetensors", tmp_path / "w4a8")
    pipeline = _pipeline(tmp_path / "w4a8")
    found = pipeline.encode_prompt("A boat ", max_sequence_length=TOKENS)
    condition = open_condition(model, folder / "condition.safetensors", 3, CPU)
    told, nothing = condition.rows([1]), condition.unconditional()
    expected = (told["context"], told["context_mask"], nothing["context"], nothing["context_mask"])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.float(), other)
    settings = {"num_inference_steps": 2, "use_resolution_binning": False, "height": 16, "width": 16}
    assert pipeline("a boat", **settings, output_type="np").images.shape == (1, 16, 16, 3)
