"""What Stable Diffusion XL is told of an image, beside diffusers' own pipeline."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from pydantic import ValidationError
from safetensors.torch import save_file

from edadm.conditions.condition import Condition, make_condition
from edadm.conditions.text import Padding, token_ids
from edadm.config.described.folder import describe_folder
from edadm.config.schema import Model
from edadm.errors import EdadmError
from edadm.networks.convert import convert_checkpoint
from edadm.networks.load import load_condition_network
from edadm.networks.settings.parts import Conditioning, TextEncoder

from ..networks.sdxl import TOKENS, described, scheduler, write_pipeline

PROMPTS = ["a puppy wearing a hat", "two boats at sea"]


class Tokenizer:
    """Calls as of transformers' tokenizers, with tokens of ours."""

    model_max_length = TOKENS
    added_tokens_encoder: ClassVar[dict[str, int]] = {}

    def __init__(self, padding: Padding):
        self.padding = padding

    def tokenize(self, prompt: str) -> list[str]:
        return prompt.split()

    def __call__(self, prompts: list[str] | str, **unused: object) -> SimpleNamespace:
        prompts = [prompts] if isinstance(prompts, str) else prompts
        return SimpleNamespace(input_ids=token_ids(prompts, TOKENS, self.padding))


Made = tuple[Model, Condition, StableDiffusionXLPipeline]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("sdxl")
    parts = write_pipeline(folder)
    (folder / "prompts.txt").write_text("\n".join(PROMPTS))
    model = described(folder, folder / "prompts.txt")
    save_file(convert_checkpoint(model, "condition"), folder / "condition.safetensors")
    assert model.conditioning is not None
    network = load_condition_network(model, folder / "condition.safetensors")
    condition = make_condition(network, model.conditioning, 2)
    pipeline = StableDiffusionXLPipeline(
        **parts, tokenizer=None, tokenizer_2=None, scheduler=scheduler(), add_watermarker=False
    )
    pipeline.tokenizer, pipeline.tokenizer_2 = Tokenizer("end_of_text"), Tokenizer("zero")
    return model, condition, pipeline


@torch.no_grad()
def test_a_prompt_is_told_as_diffusers_tells_it(made: Made) -> None:
    _, condition, pipeline = made
    rows, nothing = condition.rows([0, 1]), condition.unconditional()
    context, without, pooled, pooled_without = pipeline.encode_prompt(PROMPTS, device="cpu")
    assert context.shape == (2, TOKENS, 20)
    assert pooled.std() > 0.1
    torch.testing.assert_close(rows["context"], context, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(rows["pooled"], pooled, rtol=1e-5, atol=1e-6)
    assert torch.equal(nothing["context"], without[:1])
    assert torch.equal(nothing["pooled"], pooled_without[:1])
    ids = pipeline._get_add_time_ids((16, 16), (0, 0), (16, 16), torch.float32, 10)
    assert rows["time_ids"].tolist() == ids.repeat(2, 1).tolist()
    assert nothing["time_ids"].tolist() == ids.tolist()


@torch.no_grad()
def test_the_hidden_states_are_those_before_the_last_layer(made: Made) -> None:
    _, condition, pipeline = made
    encoder = pipeline.text_encoder
    last = encoder.encoder.layers[-1]
    seen: list[torch.Tensor] = []
    handle = last.register_forward_pre_hook(
        lambda _, inputs, kwargs: seen.append(inputs[0]), with_kwargs=True
    )
    encoder(token_ids(PROMPTS, TOKENS))
    handle.remove()
    torch.testing.assert_close(condition.rows([0, 1])["context"][..., :8], seen[0], rtol=1e-5, atol=1e-6)


def test_an_image_is_told_the_same_in_any_batch(made: Made) -> None:
    _, condition, _ = made
    both, alone = condition.rows([0, 1]), condition.rows([1])
    for name in ("context", "pooled", "time_ids"):
        torch.testing.assert_close(both[name][1:], alone[name], rtol=1e-5, atol=1e-6)


def test_a_second_encoder_that_disagrees_with_its_folder_is_refused(made: Made) -> None:
    model, _, _ = made
    told = model.conditioning
    assert told is not None
    assert told.second_encoder is not None
    other = told.second_encoder.model_copy(update={"activation": "quick_gelu"})
    changed = model.model_copy(update={"conditioning": told.model_copy(update={"second_encoder": other})})
    said = r"says conditioning\.second_encoder\.activation: gelu, the preset quick_gelu"
    with pytest.raises(EdadmError, match=said):
        convert_checkpoint(changed, "condition")


def test_a_folder_without_the_second_encoder_says_so(made: Made, tmp_path: Path) -> None:
    model, _, pipeline = made
    pipeline.text_encoder.save_pretrained(tmp_path / "text_encoder")
    (tmp_path / "text_encoder_2").mkdir()
    told = model.conditioning.model_copy(update={"checkpoint": str(tmp_path)}) if model.conditioning else None
    with pytest.raises(EdadmError, match="text_encoder_2 holds no weights"):
        convert_checkpoint(model.model_copy(update={"conditioning": told}), "condition")


def test_a_folder_without_the_second_tokenizer_pads_as_diffusers_does(made: Made, tmp_path: Path) -> None:
    model, _, _ = made
    shutil.copytree(model.checkpoint, tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "tokenizer_2")
    found = describe_folder(tmp_path / "bare")
    assert found.settings["conditioning"]["second_encoder"]["padding"] == "zero"
    assert any("there is no tokenizer_2/tokenizer_config.json; zero is" in said for said in found.left_open)
    assert not any("tokenizer_2" in said for said in describe_folder(Path(model.checkpoint)).left_open)
    bare = model.model_copy(update={"checkpoint": str(tmp_path / "bare")})
    assert convert_checkpoint(bare, "condition")  # what nothing says contradicts nothing


@pytest.mark.parametrize("said", [True, False])
def test_a_pipeline_with_empty_prompts_instead_of_zeros_is_refused(
    made: Made, said: bool, tmp_path: Path
) -> None:
    model, _, _ = made
    shutil.copytree(model.checkpoint, tmp_path / "own")
    index = tmp_path / "own" / "model_index.json"
    index.write_text(json.dumps({"force_zeros_for_empty_prompt": said}))
    changed = model.model_copy(update={"checkpoint": str(tmp_path / "own")})
    if said:
        assert describe_folder(tmp_path / "own").settings["conditioning"]["kind"] == "sdxl"
        assert convert_checkpoint(changed)
        return
    sentence = (
        rf"^{index} says force_zeros_for_empty_prompt: false, and an image without a prompt is told zeros"
    )
    with pytest.raises(EdadmError, match=sentence):
        describe_folder(tmp_path / "own")
    with pytest.raises(EdadmError, match=sentence):
        convert_checkpoint(changed)


SECOND = TextEncoder(channels=12, hidden_channels=24, layers=3, heads=2)
SIZES = (16, 16, 0, 0, 16, 16)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "text", "pooled_channels": 10}, "the kind 'text' has no setting 'pooled_channels'"),
        ({"kind": "sdxl", "second_encoder": SECOND, "pooled_channels": 10}, "the kind 'sdxl' needs time_ids"),
        (
            {
                "kind": "sdxl",
                "second_encoder": SECOND.model_copy(update={"tokens": 70}),
                "pooled_channels": 10,
                "time_ids": SIZES,
            },
            "the text encoders take prompts of 77 and 70 tokens",
        ),
    ],
)
def test_settings_of_two_encoders_stand_together_or_not_at_all(
    settings: dict[str, object], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        Conditioning.model_validate(settings)


def test_settings_of_one_encoder_are_written_as_before_there_were_two() -> None:
    dumped = Conditioning(kind="text").model_dump()
    assert {"second_encoder", "pooled_channels", "time_ids"}.isdisjoint(dumped)
    whole = Conditioning(kind="sdxl", second_encoder=SECOND, pooled_channels=10, time_ids=SIZES)
    assert Conditioning.model_validate(whole.model_dump(mode="json")) == whole
