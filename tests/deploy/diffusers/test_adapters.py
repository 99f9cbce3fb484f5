"""LoRAs beside the layers of quantized networks, on every back-end."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors.torch import save_file
from torch import Tensor, nn

import edadm
from edadm.deploy.diffusers import WEIGHTS, QuantizedUNet, as_diffusers_model
from edadm.errors import EdadmError
from edadm.nn.low_rank import low_ranks

from ..conftest import Made, output

TAKE_THEM = ("simulated", "cpu", "gpu, not fused")
LAYERS = {  # of each kind, with the shapes of down and up
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": ((4, 32), (32, 4)),
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k": ((4, 24), (32, 4)),
    "down_blocks.1.resnets.0.conv1": ((4, 16, 3, 3), (32, 4, 1, 1)),
    "down_blocks.1.resnets.0.time_emb_proj": ((4, 64), (32, 4)),
    "down_blocks.0.downsamplers.0.conv": ((4, 16, 3, 3), (16, 4, 1, 1)),
    "conv_out": ((2, 16, 3, 3), (4, 2, 1, 1)),
}


def lora(prefix: str = "unet.", seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, (down, up) in LAYERS.items():
        state[f"{prefix}{name}.lora_A.weight"] = torch.randn(down, generator=generator) * 0.3
        state[f"{prefix}{name}.lora_B.weight"] = torch.randn(up, generator=generator) * 0.3
    return state


@pytest.fixture
def unet(request: pytest.FixtureRequest, networks: dict[str, QuantizedUNet]) -> Iterator[QuantizedUNet]:
    """The network of the session, which is left as it was."""
    found = networks[getattr(request, "param", "simulated")]
    yield found
    found.unload_lora()


@pytest.fixture
def pipeline(made: Made) -> Callable[[QuantizedUNet], StableDiffusionPipeline]:
    nothing = dict.fromkeys(("vae", "text_encoder", "tokenizer", "safety_checker", "feature_extractor"))
    return lambda unet: StableDiffusionPipeline(
        unet=unet, scheduler=DDIMScheduler(), **nothing, requires_safety_checker=False
    )


class Heard:
    """Inputs and outputs of layers."""

    def __init__(self, unet: nn.Module):
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        self.hooks: list[Any] = []
        for name in LAYERS:
            layer = unet.get_submodule(name)
            self.hooks.append(
                layer.register_forward_pre_hook(
                    lambda _, args, name=name: self.inputs.update({name: args[0].clone()})
                )
            )
            self.hooks.append(
                layer.register_forward_hook(
                    lambda _, args, out, name=name: self.outputs.update({name: out.clone()})
                )
            )

    def end(self) -> None:
        for hook in self.hooks:
            hook.remove()


@pytest.mark.parametrize("unet", TAKE_THEM, indirect=True)
@torch.no_grad()
def test_a_layer_gives_its_own_output_plus_the_branch_of_its_input(unet: QuantizedUNet, made: Made) -> None:
    before, state = output(unet, made[2]), lora()
    unet.load_lora_adapter(state, prefix="unet")
    unet.set_adapters("default_0", 0.5)
    heard = Heard(unet)
    assert not torch.equal(output(unet, made[2]), before)
    heard.end()
    unet.disable_lora()
    for name in LAYERS:
        x, layer = heard.inputs[name], unet.get_submodule(name)
        down, up = (state[f"unet.{name}.lora_{role}.weight"] for role in "AB")
        if x.dim() == 4:
            stride = 2 if "downsamplers" in name else 1
            branch = nn.functional.conv2d(nn.functional.conv2d(x, down, stride=stride, padding=1), up)
        else:
            branch = x @ down.T @ up.T
        torch.testing.assert_close(heard.outputs[name], layer(x) + 0.5 * branch, rtol=1e-5, atol=1e-5)
    assert torch.equal(output(unet, made[2]), before)


@pytest.mark.parametrize("unet", TAKE_THEM, indirect=True)
def test_loras_are_switched_scaled_and_unloaded(unet: QuantizedUNet, made: Made) -> None:
    modules, before = {name for name, _ in unet.named_modules()}, output(unet, made[2])
    facts = unet.num_parameters(), unet.state_dict().keys()
    unet.load_lora_adapter(lora(), adapter_name="a")
    only_a = output(unet, made[2])
    unet.load_lora_adapter(lora(seed=1), adapter_name="b")
    assert (unet.num_parameters(), unet.state_dict().keys()) == facts
    assert unet.active_adapters() == ["b"]
    only_b = output(unet, made[2])
    unet.set_adapters(["a", "b"], [1.0, 0.0])
    assert torch.equal(output(unet, made[2]), only_a)
    unet.set_adapters(["a", "b"])
    both = output(unet, made[2])
    assert not any(torch.equal(both, one) for one in (only_a, only_b, before))
    assert torch.equal(output(copy.deepcopy(unet), made[2]), both)
    unet.disable_adapters()
    assert torch.equal(output(unet, made[2]), before)
    unet.enable_adapters()
    assert torch.equal(output(unet, made[2]), both)
    unet.delete_adapters("a")
    unet.set_adapters("b")
    assert torch.equal(output(unet, made[2]), only_b)
    unet.unload_lora()
    assert torch.equal(output(unet, made[2]), before)
    assert {name for name, _ in unet.named_modules()} == modules
    assert not hasattr(unet, "peft_config")


def test_a_strength_may_be_that_of_a_block(unet: QuantizedUNet) -> None:
    unet.load_lora_adapter(lora())
    unet.set_adapters(["default_0"], [{"down": 0.25, "mid": 2}])
    strengths = {name: branches.strengths["default_0"] for name, branches in low_ranks(unet).items()}
    attention = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    assert (strengths[attention], strengths["conv_out"]) == (0.25, 1.0)


def test_what_is_saved_and_loaded_as_a_state_is_the_network_without(made: Made, tmp_path: Path) -> None:
    unet = edadm.load(made[1])
    unet.load_lora_adapter(lora())
    unet.save_pretrained(tmp_path)
    assert (tmp_path / WEIGHTS).read_bytes() == made[1].read_bytes()
    expected = output(unet, made[2])
    unet.load_state_dict(edadm.load(made[1]).state_dict())
    assert torch.equal(output(unet, made[2]), expected)
    half = unet.half()
    rows = {name: rows.half() if rows.is_floating_point() else rows for name, rows in made[2].items()}
    torch.testing.assert_close(output(half, rows).float(), expected, rtol=0.1, atol=0.2)


def test_alphas_and_forms_of_files_mean_what_they_mean_to_conversion(
    unet: QuantizedUNet, made: Made, tmp_path: Path
) -> None:
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    down, up = (lora()[f"unet.{name}.lora_{role}.weight"] for role in "AB")
    states: list[tuple[dict[str, Tensor], dict[str, Any]]] = [
        ({f"unet.{name}.lora_A.weight": down, f"unet.{name}.lora_B.weight": up},
         {"network_alphas": {f"unet.{name}.alpha": 2.0}}),
        ({f"unet.{name}.lora.down.weight": down, f"unet.{name}.lora.up.weight": up},
         {"metadata": {"unet.lora_alpha": 2, "unet.r": 4}}),
        ({f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up},
         {"metadata": {"lora_alpha": 2}, "prefix": None}),
    ]  # fmt: skip
    flat = f"lora_unet_{name.replace('.', '_')}"
    kohya = {
        f"{flat}.lora_down.weight": down,
        f"{flat}.lora_up.weight": up,
        f"{flat}.alpha": torch.tensor(2.0),
    }
    save_file(kohya, tmp_path / "k.safetensors")
    found = []
    for state, named in (
        *states,
        (tmp_path / "k.safetensors", {}),
        (tmp_path, {"weight_name": "k.safetensors"}),
    ):
        unet.load_lora_adapter(state, **named)
        found.append(output(unet, made[2]))
        unet.unload_lora()
    unet.load_lora_adapter(states[0][0])
    unet.set_adapters("default_0", 0.5)
    assert all(torch.equal(one, output(unet, made[2])) for one in found)


def test_one_that_is_loaded_while_none_may_act_does_not_act_in_part(unet: QuantizedUNet, made: Made) -> None:
    before = output(unet, made[2])
    unet.load_lora_adapter({name: tensor for name, tensor in lora().items() if "conv_out" in name})
    unet.disable_adapters()
    unet.load_lora_adapter(lora())
    assert torch.equal(output(unet, made[2]), before)
    unet.delete_adapters("default_0")
    unet.load_lora_adapter(lora(seed=1))
    assert unet.active_adapters() == ["default_0"]
    unet.enable_adapters()
    assert not torch.equal(output(unet, made[2]), before)


REFUSED: dict[str, tuple[Callable[[Any], object], str]] = {
    "fuse": (lambda unet: unet.fuse_lora(), "a LoRA stays beside the codes"),
    "train": (lambda unet: unet.add_adapter(object()), "LoRAs are loaded, with load_lora_adapter"),
    "old": (lambda unet: unet.load_attn_procs({}), "LoRAs are loaded, with load_lora_adapter"),
    "same": (lambda unet: unet.load_lora_adapter(lora(), adapter_name="a"), "there is a LoRA 'a' already"),
    "hotswap": (lambda unet: unet.load_lora_adapter(lora(), hotswap=True), "is not loaded with hotswap"),
    "unknown": (lambda unet: unet.set_adapters("b"), "there is no LoRA 'b' beside this network; loaded: 'a'"),
    "weights": (lambda unet: unet.set_adapters(["a"], [1.0, 2.0]), "2 weights do not fit 1 LoRAs"),
    "blocks": (lambda unet: unet.set_adapters("a", {"nonsense": 1.0}), "are no strengths of LoRAs .*; give numbers such as"),
    "infinite": (lambda unet: unet.set_adapters("a", float("inf")), "inf are no strengths of LoRAs .inf is not finite"),
    "text": (lambda unet: unet.set_adapters(["a"], ("much",)), "'much'"),
    "layer": (
        lambda unet: unet.load_lora_adapter({"unet.x.lora_A.weight": torch.ones(1, 2), "unet.x.lora_B.weight": torch.ones(2, 1)}),
        "the LoRA changes 'unet.x', which this network has not",
    ),
    "sizes": (
        lambda unet: unet.load_lora_adapter({"unet.conv_out.lora_A.weight": torch.ones(1, 9, 3, 3), "unet.conv_out.lora_B.weight": torch.ones(4, 1, 1, 1)}),
        r"low-rank factors of \(1, 9, 3, 3\) and \(4, 1, 1, 1\) do not fit a layer of \(4, 16, 3, 3\)",
    ),
    "kind": (lambda unet: unet.load_lora_adapter({"unet.conv_out.lokr_w1": torch.ones(2, 2)}), "belongs to LoKr"),
    "file": (lambda unet: unet.load_lora_adapter("nowhere.safetensors"), "there is no file nowhere.safetensors; name the file"),
    "nothing": (lambda unet: unet.load_lora_adapter({}), "the LoRA holds no tensors of a LoRA"),
    "numbers": (lambda unet: unet.load_lora_adapter({name: tensor / 0 for name, tensor in lora().items()}), "numbers in .* are not finite"),
    "vector": (lambda unet: unet.load_lora_adapter({"unet.conv_out.lora_A.weight": torch.ones(9)}), r"of \(9,\) is no matrix"),
}  # fmt: skip


@pytest.mark.parametrize("call", REFUSED)
def test_what_cannot_be_done_with_them_is_refused_and_changes_nothing(call: str, unet: QuantizedUNet) -> None:
    act, words = REFUSED[call]
    unet.load_lora_adapter(lora(), adapter_name="a")
    layers = low_ranks(unet).keys()
    with pytest.raises(EdadmError, match=words):
        act(unet)
    assert unet.active_adapters() == ["a"]
    assert low_ranks(unet).keys() == layers


def test_blocks_that_are_computed_as_one_have_no_place_for_them(
    networks: dict[str, QuantizedUNet], made: Made
) -> None:
    with pytest.raises(
        EdadmError, match=r"computes several layers at once.*load it with backend='simulated'"
    ):
        networks["gpu"].load_lora_adapter(lora())
    networks["gpu"].load_lora_adapter({"text_encoder.x.lora_A.weight": torch.ones(1, 2), "text_encoder.x.lora_B.weight": torch.ones(2, 1)})  # fmt: skip
    assert not hasattr(networks["gpu"], "peft_config")


@pytest.mark.skipif(
    importlib.util.find_spec("peft") is None, reason="peft is not installed; `.ci/long` has it"
)
@pytest.mark.parametrize("unet", TAKE_THEM, indirect=True)
def test_pipelines_load_switch_and_unload_them(
    unet: QuantizedUNet, made: Made, pipeline: Any, tmp_path: Path
) -> None:
    before, pipe = output(unet, made[2]), pipeline(unet)
    save_file(lora(), tmp_path / "pytorch_lora_weights.safetensors")
    pipe.load_lora_weights(tmp_path, adapter_name="a")
    pipe.load_lora_weights(lora(seed=1), adapter_name="b")
    assert pipe.get_list_adapters() == {"unet": ["a", "b"]}
    assert pipe.get_active_adapters() == ["b"]
    pipe.set_adapters(["a"], adapter_weights=[0.5])
    half = output(unet, made[2])
    pipe.set_adapters("a")
    assert torch.equal(output(unet, made[2], cross_attention_kwargs={"scale": 0.5}), half)
    assert not torch.equal(output(unet, made[2]), half)
    assert torch.equal(output(unet, made[2], cross_attention_kwargs={"scale": 0.0}), before)
    pipe.set_lora_device(["a"], "cpu")
    with pytest.raises(EdadmError, match="a LoRA stays beside the codes"):
        pipe.fuse_lora()
    pipe.disable_lora()
    assert torch.equal(output(unet, made[2]), before)
    pipe.enable_lora()
    pipe.delete_adapters("b")
    pipe.unload_lora_weights()
    assert pipe.get_list_adapters() == {}
    assert torch.equal(output(unet, made[2]), before)


@pytest.mark.skipif(
    importlib.util.find_spec("peft") is None, reason="peft is not installed; `.ci/long` has it"
)
def test_beside_layers_in_full_precision_they_are_those_of_peft(made: Made, pipeline: Any) -> None:
    theirs = copy.deepcopy(made[0])
    ours = as_diffusers_model(copy.deepcopy(made[0]), edadm.load(made[1]).facts, "simulated")
    found = {}
    for unet in (theirs, ours):
        pipe = pipeline(unet)
        pipe.load_lora_weights(lora(), adapter_name="a")
        pipe.load_lora_weights(lora(seed=1), adapter_name="b")
        outputs = [output(unet, made[2])]
        pipe.set_adapters(["a", "b"], [0.7, 0.4])
        outputs.append(output(unet, made[2]))
        outputs.append(output(unet, made[2], cross_attention_kwargs={"scale": 0.3}))
        found[unet is ours] = outputs
    for mine, their in zip(found[True], found[False], strict=True):
        torch.testing.assert_close(mine, their, rtol=1e-4, atol=1e-4)
