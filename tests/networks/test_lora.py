"""LoRAs in every layout, merged, beside the sum that they stand for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from edadm.artifacts import describe
from edadm.errors import EdadmError
from edadm.networks.build import build_network
from edadm.networks.convert import convert_checkpoint
from edadm.networks.load import build_part
from edadm.networks.lora import Lora, loras_for, merged
from edadm.networks.weights import CheckpointError
from edadm.stages import convert

from .families import original_checkpoint, random_network, tiny
from .sdxl import described, write_pipeline

State = dict[str, Tensor]
MODEL = tiny("sd14_coco")
RANK = 2
LAYERS = (
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0",
    "up_blocks.0.attentions.1.transformer_blocks.0.attn2.to_k",
)


@pytest.fixture(scope="module")
def unet() -> State:
    return dict(random_network(build_network(MODEL.architecture), 1).state_dict())


def factors(state: State, layer: str) -> tuple[Tensor, Tensor]:
    """The factors of a layer's change, down and up."""
    rows, columns = state[f"{layer}.weight"].shape[:2]
    generator = torch.Generator().manual_seed(len(layer))
    return torch.randn(RANK, columns, generator=generator), torch.randn(rows, RANK, generator=generator)


def in_layout(state: State, name: Callable[[str], str], down: str, up: str) -> State:
    made = {}
    for layer in LAYERS:
        a, b = factors(state, layer)
        made |= {f"{name(layer)}{down}": a, f"{name(layer)}{up}": b}
    return made


def kohya(layer: str) -> str:
    return f"lora_unet_{layer.replace('.', '_')}"


def of_processor(layer: str) -> str:
    attention, _, role = layer.removesuffix(".0").rpartition(".")
    return f"{attention}.processor.{role}_lora"


DIFFUSERS = (".lora_A.weight", ".lora_B.weight")
LAYOUTS: dict[str, tuple[Callable[[str], str], str, str]] = {
    "kohya": (kohya, ".lora_down.weight", ".lora_up.weight"),
    "diffusers": (lambda layer: f"unet.{layer}", *DIFFUSERS),
    "diffusers, named": (lambda layer: f"unet.{layer}", ".lora_A.style.weight", ".lora_B.style.weight"),
    "diffusers, before": (lambda layer: f"unet.{layer}", ".lora.down.weight", ".lora.up.weight"),
    "linear layers": (
        lambda layer: f"unet.{layer}",
        ".lora_linear_layer.down.weight",
        ".lora_linear_layer.up.weight",
    ),
    "processors": (of_processor, ".down.weight", ".up.weight"),
    "processors of a unet": (lambda layer: f"unet.{of_processor(layer)}", ".down.weight", ".up.weight"),
}


def expected(state: State, times: float) -> State:
    return {
        f"{layer}.weight": state[f"{layer}.weight"]
        + times * (factors(state, layer)[1] @ factors(state, layer)[0])
        for layer in LAYERS
    }


def assert_merged(found: State, state: State, times: float) -> None:
    wanted = state | expected(state, times)
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=1e-5, atol=1e-6, msg=name)
    assert found.keys() == state.keys()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layers_get_the_product_of_their_factors(layout: str, unet: State, tmp_path: Path) -> None:
    save_file(in_layout(unet, *LAYOUTS[layout]), tmp_path / "x.safetensors")
    assert_merged(merged(unet, [Lora(tmp_path / "x.safetensors", 0.5)], MODEL, "unet"), unet, 0.5)


def test_alpha_of_each_layer_counts_and_files_add_up(unet: State, tmp_path: Path) -> None:
    alphas = {f"{kohya(layer)}.alpha": torch.tensor(1.0, dtype=torch.float16) for layer in LAYERS}
    save_file(in_layout(unet, *LAYOUTS["kohya"]) | alphas, tmp_path / "a.safetensors")
    torch.save(in_layout(unet, *LAYOUTS["diffusers"]), tmp_path / "b.bin")
    loras = loras_for("unet", [f"{tmp_path / 'a.safetensors'}:0.8", f"{tmp_path / 'b.bin'}:-.25"])
    assert [lora.strength for lora in loras] == [0.8, -0.25]
    assert_merged(merged(unet, loras, MODEL, "unet"), unet, 0.8 * 1 / RANK - 0.25)


def test_alpha_may_be_told_by_metadata_or_beside_the_file(unet: State, tmp_path: Path) -> None:
    said = {"unet.lora_alpha": 6, "unet.alpha_pattern": {}, "unet.r": RANK}
    state = in_layout(unet, *LAYOUTS["diffusers"])
    save_file(state, tmp_path / "x.safetensors", {"lora_adapter_metadata": json.dumps(said)})
    assert_merged(merged(unet, [Lora(tmp_path / "x.safetensors")], MODEL, "unet"), unet, 6 / RANK)
    bare = {name.removeprefix("unet."): tensor for name, tensor in state.items()}
    said = {"lora_alpha": 5, "alpha_pattern": {LAYERS[1]: 5}}  # as a U-Net's own `save_lora_adapter`
    save_file(bare, tmp_path / "x.safetensors", {"lora_adapter_metadata": json.dumps(said)})
    assert_merged(merged(unet, [Lora(tmp_path / "x.safetensors")], MODEL, "unet"), unet, 5 / RANK)
    pattern = {"alpha_pattern": dict.fromkeys(("attn2.to_k", "attn1.to_q"), 8), "lora_alpha": 8}
    state = in_layout(unet, lambda layer: f"base_model.model.{layer}", *DIFFUSERS)
    save_file(state, tmp_path / "adapter_model.safetensors")
    lora = Lora(tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"needs the adapter_config\.json that peft wrote beside it"):
        merged(unet, [lora], MODEL, "unet")
    (tmp_path / "adapter_config.json").write_text(json.dumps(pattern | {"use_rslora": True}))
    assert_merged(merged(unet, [lora], MODEL, "unet"), unet, 8 / RANK**0.5)
    (tmp_path / "adapter_config.json").write_text(json.dumps(pattern | {"use_dora": True}))
    with pytest.raises(CheckpointError, match="is no plain LoRA but DoRA; merge it with peft"):
        merged(unet, [lora], MODEL, "unet")


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("[1, 2]", "is no table of settings"),
        ("{", "is no JSON"),
        ('{"lora_alpha": "much"}', "scale of .* makes no sense"),
        ('{"alpha_pattern": {"(": 8}}', "scale of .* makes no sense"),
        ('{"alpha_pattern": [8]}', "scale of .* makes no sense"),
        (b"\xff\xfe", r"adapter_config\.json"),
    ],
)
def test_nonsense_beside_a_file_is_named(
    said: str | bytes, sentence: str, unet: State, tmp_path: Path
) -> None:
    state = in_layout(unet, lambda layer: f"base_model.model.{layer}", *DIFFUSERS)
    save_file(state, tmp_path / "adapter_model.safetensors")
    beside = tmp_path / "adapter_config.json"
    beside.write_bytes(said if isinstance(said, bytes) else said.encode())
    with pytest.raises(EdadmError, match=sentence):
        merged(unet, [Lora(tmp_path / "adapter_model.safetensors")], MODEL, "unet")


def test_convolutions_are_changed_with_and_without_a_factor_between(unet: State, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(3)
    layer, name = "down_blocks.0.resnets.0.conv1", "lora_unet_down_blocks_0_resnets_0_conv1"
    rows, columns = unet[f"{layer}.weight"].shape[:2]
    up = torch.randn(rows, RANK, 1, 1, generator=generator)
    down = torch.randn(RANK, columns, 3, 3, generator=generator)
    save_file({f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, tmp_path / "conv.safetensors")
    found = merged(unet, [Lora(tmp_path / "conv.safetensors")], MODEL, "unet")[f"{layer}.weight"]
    x = torch.randn(1, columns, 5, 5, generator=generator)
    convolve = torch.nn.functional.conv2d
    change = convolve(convolve(x, down), up)
    torch.testing.assert_close(convolve(x, found - unet[f"{layer}.weight"]), change, rtol=1e-4, atol=1e-4)
    mid, down = torch.randn(RANK, RANK, 3, 3, generator=generator), down[:, :, :1, :1].contiguous()
    tensors = {"down": down, "mid": mid, "up": up}
    save_file(
        {f"{name}.lora_{key}.weight": value for key, value in tensors.items()}, tmp_path / "m.safetensors"
    )
    found = merged(unet, [Lora(tmp_path / "m.safetensors")], MODEL, "unet")[f"{layer}.weight"]
    change = convolve(convolve(convolve(x, down), mid), up)
    torch.testing.assert_close(convolve(x, found - unet[f"{layer}.weight"]), change, rtol=1e-4, atol=1e-4)


ORIGINAL = {  # by the original code's names, of blocks of one layer
    "input_blocks_3_1_transformer_blocks_0_attn1_to_q": LAYERS[0],
    "middle_block_1_transformer_blocks_0_attn2_to_out_0": LAYERS[1],
    "input_blocks_1_0_in_layers_2": "down_blocks.0.resnets.0.conv1",
    "input_blocks_3_1_proj_out": "down_blocks.1.attentions.0.proj_out",
    "input_blocks_3_0_emb_layers_1": "down_blocks.1.resnets.0.time_emb_proj",
    "input_blocks_2_0_op": "down_blocks.0.downsamplers.0.conv",
    "output_blocks_1_2_conv": "up_blocks.0.upsamplers.0.conv",
    "output_blocks_1_0_skip_connection": "up_blocks.0.resnets.1.conv_shortcut",
    "input_blocks_0_0": "conv_in",
    "time_embed_2": "time_embedding.linear_2",
    "out_2": "conv_out",
}


@pytest.mark.parametrize("name", ORIGINAL)
def test_names_of_the_original_code_are_known(name: str, unet: State, tmp_path: Path) -> None:
    weight = unet[f"{ORIGINAL[name]}.weight"]
    down = torch.ones(1, *weight.shape[1:])
    up = torch.ones(len(weight), 1, *[1] * (weight.dim() - 2))
    names = [f"lora_unet_{name}.lora_{role}.weight" for role in ("down", "up")]
    save_file(dict(zip(names, (down, up), strict=True)), tmp_path / "x.safetensors")
    found = merged(unet, [Lora(tmp_path / "x.safetensors", 2.0)], MODEL, "unet")
    assert [key for key in found if not torch.equal(found[key], unet[key])] == [f"{ORIGINAL[name]}.weight"]
    torch.testing.assert_close(found[f"{ORIGINAL[name]}.weight"], weight + 2)


def test_text_encoders_are_changed_as_their_own_part(
    unet: State, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = dict(random_network(build_part(MODEL, "condition"), 1).state_dict())
    name = next(name for name in text if name.endswith("layers.0.self_attn.q_proj.weight"))
    a, b = torch.ones(1, text[name].shape[1]), torch.ones(len(text[name]), 1)
    layer = f"text_model.{name.removesuffix('.weight').removeprefix('text_model.')}"
    kohyas = f"lora_te_{layer.replace('.', '_')}"
    for prefix, down, up in (
        (kohyas, ".lora_down.weight", ".lora_up.weight"),
        (f"text_encoder.{layer}", *DIFFUSERS),
    ):
        both = in_layout(unet, *LAYOUTS["kohya"]) | {f"{prefix}{down}": a, f"{prefix}{up}": b}
        save_file(both, tmp_path / "x.safetensors")
        found = merged(text, [Lora(tmp_path / "x.safetensors")], MODEL, "condition")
        torch.testing.assert_close(found[name], text[name] + 1)
        assert_merged(merged(unet, [Lora(tmp_path / "x.safetensors")], MODEL, "unet"), unet, 1)
        assert (
            "it changes text_encoder, too; convert that part with --lora as well" in capsys.readouterr().err
        )
    save_file(in_layout(unet, *LAYOUTS["kohya"]), tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="changes nothing of the condition; leave it out for this part"):
        merged(text, [Lora(tmp_path / "x.safetensors")], MODEL, "condition")


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "other layer": (
        {
            "unet.nowhere.to_q.lora_A.weight": torch.ones(1, 8),
            "unet.nowhere.to_q.lora_B.weight": torch.ones(8, 1),
        },
        r"changes 'unet\.nowhere\.to_q', which this network has not; name a LoRA of the same base model",
    ),
    "other size": (
        {
            f"unet.{LAYERS[0]}.lora_A.weight": torch.ones(1, 7),
            f"unet.{LAYERS[0]}.lora_B.weight": torch.ones(8, 1),
        },
        r"of \(1, 7\) and \(8, 1\) does not fit a weight of",
    ),
    "half": (
        {f"unet.{LAYERS[0]}.lora_A.weight": torch.ones(1, 8)},
        "has one of two factors; merge it with the",
    ),
    "LoHa": ({f"{kohya(LAYERS[0])}.hada_w1_a": torch.ones(1, 8)}, "belongs to LoHa, not to a plain LoRA"),
    "DoRA": ({f"{kohya(LAYERS[0])}.dora_scale": torch.ones(1, 8)}, "belongs to DoRA"),
    "weights": ({"conv_in.weight": torch.ones(1, 8)}, "'conv_in.weight' is no low-rank factor and no alpha"),
    "numbers": (
        {f"unet.{LAYERS[0]}.lora_A.weight": torch.full((1, 8), torch.nan)},
        "numbers in .* are not finite",
    ),
    "nothing": ({}, "holds no tensors of a LoRA; name another file"),
    "alphas": ({f"{kohya(LAYERS[0])}.alpha": torch.ones(2)}, "holds no tensors of a LoRA"),
    "alpha": (
        {f"{kohya(LAYERS[0])}.alpha": torch.ones(2), f"{kohya(LAYERS[0])}.lora_up.weight": torch.ones(8, 1)},
        r"\.alpha' holds 2 numbers, and an alpha is one; merge it",
    ),
    "vector": (
        {f"unet.{LAYERS[0]}.lora_A.weight": torch.ones(8)},
        r"of \(8,\) is no matrix, as low-rank factors are; merge it",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_other_files_are_refused(case: str, unet: State, tmp_path: Path) -> None:
    tensors, words = BAD[case]
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match=words):
        merged(unet, [Lora(tmp_path / "x.safetensors")], MODEL, "unet")


def test_absent_files_and_parts_without_layers_are_refused_before_work(tmp_path: Path) -> None:
    with pytest.raises(EdadmError, match=r"there is no file .*x:0\.5x; name a LoRA as FILE or FILE:STRENGTH"):
        loras_for("unet", [f"{tmp_path}/x:0.5x"])
    with pytest.raises(EdadmError, match="not the autoencoder; leave --lora out"):
        loras_for("autoencoder", [str(tmp_path)])


def test_the_command_merges_and_its_file_is_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convert, "code_of", lambda stage: stage)  # which takes seconds
    torch.save(original_checkpoint(MODEL), tmp_path / "model.ckpt")
    model = tiny("sd14_coco", tmp_path / "model.ckpt")
    convert.run(model, "unet", tmp_path / "plain.safetensors")
    plain = load_file(tmp_path / "plain.safetensors")
    save_file(in_layout(plain, *LAYOUTS["kohya"]), tmp_path / "style.safetensors")
    output = tmp_path / "merged.safetensors"
    for strength in (0.25, 0.5):  # the second is another file
        convert.run(model, "unet", output, [f"{tmp_path / 'style.safetensors'}:{strength}"])
        assert_merged(load_file(output), plain, strength)
        assert (describe(output) or {})["made_from"]["lora"] == [
            {"file": "style.safetensors", "strength": strength}
        ]
    again = convert_checkpoint(tiny("sd14_coco", output))
    assert all(torch.equal(again[name], tensor) for name, tensor in load_file(output).items())


def test_sdxl_has_names_of_its_own(tmp_path: Path) -> None:
    parts = write_pipeline(tmp_path / "sdxl")
    (tmp_path / "prompts.txt").write_text("a cat\n" * 3)
    model = described(tmp_path / "sdxl", tmp_path / "prompts.txt")
    wanted = {
        "lora_unet_input_blocks_3_1_transformer_blocks_0_attn1_to_q": "down_blocks.1.attentions.0"
        ".transformer_blocks.0.attn1.to_q",
        "lora_unet_input_blocks_3_1_proj_out": "down_blocks.1.attentions.0.proj_out",
        "lora_unet_label_emb_0_2": "add_embedding.linear_2",
    }
    state = dict(parts["unet"].state_dict())
    text = convert_checkpoint(model, "condition")
    layer = "text_model.encoder.layers.0.mlp.fc1"
    encoders = {
        f"lora_te{n}_{layer.replace('.', '_')}": name.removesuffix(".weight")
        for n, place in ((1, "first."), (2, "second."))
        for name in text
        if name.startswith(place) and name.endswith("layers.0.mlp.fc1.weight")
    }
    assert len(encoders) == 2
    tensors = {}
    for name, own in (wanted | encoders).items():
        weight = (state | text)[f"{own}.weight"]
        tensors[f"{name}.lora_down.weight"] = torch.ones(1, weight.shape[1])
        tensors[f"{name}.lora_up.weight"] = torch.ones(len(weight), 1)
    save_file(tensors, tmp_path / "xl.safetensors")
    for part, before, names in (("unet", state, wanted), ("condition", text, encoders)):
        found = merged(before, [Lora(tmp_path / "xl.safetensors")], model, part)
        changed = {name for name in found if not torch.equal(found[name], before[name])}
        assert changed == {f"{own}.weight" for own in names.values()}
        for name in changed:
            torch.testing.assert_close(found[name], before[name] + 1)
