"""Single files of Stable Diffusion 1, 2 and XL: the same networks as diffusers and open_clip have of them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from torch import nn

from edadm.conditions.text import token_ids
from edadm.config.load import load_config
from edadm.config.schema import Model
from edadm.errors import EdadmError
from edadm.networks.build import build_network
from edadm.networks.convert import convert_checkpoint
from edadm.networks.described.compvis import compvis_unet
from edadm.networks.described.tensors import describe_tensors
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows
from edadm.networks.load import build_part
from edadm.networks.settings.architecture import Architecture
from edadm.networks.units.trace import trace

from ..described.test_tensors import as_model
from ..sdxl import PUBLISHED as XL
from ..sdxl import told
from ..single_file import SECOND, State, in_compvis, second, unet_of, written, xl

# unet/config.json of huggingface.co/stabilityai/stable-diffusion-2-1, without what is as by default
PUBLISHED: dict[str, Any] = {
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "sample_size": 96,
    "upcast_attention": True,
    "use_linear_projection": True,
}
Made = tuple[nn.Module, nn.Module, Model]


def shape_of(state: State) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def completed(path: Path) -> Model:
    """The preset of a file as it is described, with the heads and groups that no tensor has."""
    found = describe_tensors(path, {})
    own = found.settings["architecture"]
    own["diffusers"] |= {"attention_head_dim": [1, 2], "norm_num_groups": 4}
    own["image_size"] = found.settings["autoencoder"]["norm_groups"] = 8
    return as_model(found)


@pytest.fixture(scope="module", params=["second", "xl"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A U-Net of diffusers, a text encoder of open_clip, and the preset of the file that holds both."""
    unet, text, state = second() if request.param == "second" else xl()
    path = written(state, tmp_path_factory.mktemp("single") / "model.safetensors")
    return unet, text, completed(path)


def test_the_file_is_one_that_diffusers_reads(made: Made) -> None:
    unet, _, _ = made
    state = {f"model.diffusion_model.{name}": tensor for name, tensor in in_compvis(unet).items()}
    theirs = convert_ldm_unet_checkpoint(state, dict(unet.config))
    assert shape_of(theirs) == shape_of(unet.state_dict())
    assert all(torch.equal(theirs[name], tensor) for name, tensor in unet.state_dict().items())


@torch.no_grad()
def test_the_network_computes_what_diffusers_does(made: Made) -> None:
    theirs, _, model = made
    ours = build_part(model, "unet")
    ours.load_state_dict(convert_checkpoint(model))
    rows = {
        "latents": torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)),
        "timesteps": torch.tensor([20, 900]),
    }
    width = model.architecture.context_channels
    added = None
    if width == 20:
        rows |= told(2)
        added = {"text_embeds": rows["pooled"], "time_ids": rows["time_ids"].float()}
    else:
        rows["context"] = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(2))
    expected = theirs(rows["latents"], rows["timesteps"], rows["context"], added_cond_kwargs=added).sample
    assert expected.std() > 0.1
    torch.testing.assert_close(network_call(ours.eval(), Rows(rows)), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_text_encoder_says_what_open_clip_does(made: Made) -> None:
    _, theirs, model = made
    network = build_part(model, "condition")
    network.load_state_dict(convert_checkpoint(model, "condition"), strict=False)
    for _, buffer in network.named_buffers():
        buffer.copy_(torch.arange(buffer.shape[1])[None])
    ids = token_ids(["a puppy wearing a hat", "boats"], 16, "zero")
    states: list[torch.Tensor] = []
    last = theirs.transformer.resblocks[-1]
    last.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    pooled = theirs(ids)
    if model.architecture.family == "sdxl":
        said = network.second.eval()(ids, output_hidden_states=True)
        torch.testing.assert_close(said.hidden_states[-2], states[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(said.text_embeds, pooled, rtol=1e-4, atol=1e-5)
    else:
        said = network.eval()(ids).last_hidden_state
        torch.testing.assert_close(said, theirs.ln_final(states[0]), rtol=1e-4, atol=1e-5)


def test_sentences_on_what_a_file_of_stable_diffusion_2_leaves_open(tmp_path: Path) -> None:
    _, _, state = second()
    last = "model.diffusion_model.output_blocks.3.1.transformer_blocks.0.norm1.bias"
    for spread, prediction, side in ((0.08, "eps", 64), (0.1, "v", 96)):
        biases = torch.tensor([spread, -spread] * 4)
        found = describe_tensors(written(state | {last: biases}, tmp_path / "2.safetensors"), {})
        assert found.settings["prediction"] == prediction
        assert found.settings["architecture"]["image_size"] == side
        said = " ".join(found.left_open)
        assert f"{prediction} is a guess, since the biases of the last norm1 spread by {spread:.3f}" in said
        assert "conditioning.encoder.layers is one less than the file has" in said
    marked = written(state | {"v_pred": torch.zeros(0)}, tmp_path / "marked.safetensors")
    found = describe_tensors(marked, {})
    assert found.settings["prediction"] == "v"
    assert not any("prediction" in sentence for sentence in found.left_open)


@pytest.mark.parametrize("version", ["2", "xl"])
def test_shapes_of_the_published_network_give_the_settings_of_its_folder(version: str) -> None:
    settings = {key: value for key, value in XL.items() if not key.startswith("_")}
    with torch.device("meta"):
        theirs = UNet2DConditionModel(**(PUBLISHED if version == "2" else settings))
    said, left_open = compvis_unet(shape_of(in_compvis(theirs)), Path("sd.ckpt"), {})
    architecture = Architecture.model_validate(said | ({"image_size": 96} if version == "2" else {}))
    assert any("heads of 64 channels are those of Stable Diffusion 2 and XL" in said for said in left_open)
    if version == "xl":
        assert architecture == load_config().models["sdxl_base"].architecture
        return
    with torch.device("meta"):
        ours = build_network(architecture)
    assert shape_of(ours.state_dict()) == shape_of(theirs.state_dict())
    assert sum(parameter.numel() for parameter in ours.parameters()) == 865_910_724
    heads = [module.heads for module in theirs.modules() if hasattr(module, "to_q")]
    assert [module.heads for module in ours.modules() if hasattr(module, "to_q")] == heads
    units = trace(ours).units
    assert Counter(unit.kind for unit in units) == {"res_block": 22, "transformer": 16, "layer": 42}
    names = [layer for unit in units for layer in unit.layers]
    layers = sum(isinstance(module, nn.Conv2d | nn.Linear) for module in theirs.modules())
    assert len(names) == len(set(names)) == layers


def test_a_file_in_another_layout_than_the_preset_says(tmp_path: Path) -> None:
    _, _, state = second()
    path = written(state, tmp_path / "model.safetensors")
    model = completed(path).model_copy(update={"layout": "ddim"})
    with pytest.raises(EdadmError, match="is not in the 'ddim' layout but in 'compvis'; set layout: compvis"):
        convert_checkpoint(model)
    deeper = unet_of({"layers_per_block": 2}, SECOND)
    written({f"model.diffusion_model.{name}": t for name, t in in_compvis(deeper).items()}, path)
    with pytest.raises(EdadmError, match="it has 6 input blocks, and 2 multipliers with blocks_per_level 1"):
        convert_checkpoint(model.model_copy(update={"layout": "compvis"}))
