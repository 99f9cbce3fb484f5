"""Checkpoints of the CompVis layout: what is taken, and what is refused in a sentence."""

from __future__ import annotations

import pickle
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from edadm.config.schema import Model
from edadm.errors import EdadmError
from edadm.networks.autoencoder import build_autoencoder
from edadm.networks.build import build_network
from edadm.networks.convert import convert_checkpoint
from edadm.networks.weights import CheckpointError, read_state

from .families import original_checkpoint, original_unet, random_network, tiny
from .weights.test_weights import Hostile

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def bedroom() -> State:
    return original_checkpoint(tiny("ldm4_bedroom"))


def saved(state: Any, folder: Path, family: str = "ldm4_bedroom", **changes: Any) -> Model:
    torch.save(state, folder / "model.ckpt")
    return tiny(family, folder / "model.ckpt", **changes)


def test_averaged_weights_are_taken_where_the_published_run_takes_them(
    bedroom: State, tmp_path: Path
) -> None:
    model = saved({"state_dict": bedroom}, tmp_path)
    averaged, plain = convert_checkpoint(model), convert_checkpoint(model.model_copy(update={"ema": False}))
    assert torch.equal(
        averaged["conv_in.weight"], original_unet(model, seed=30).state_dict()["input_blocks.0.0.weight"]
    )
    assert torch.equal(
        plain["conv_in.weight"], original_unet(model, seed=3).state_dict()["input_blocks.0.0.weight"]
    )


def test_a_checkpoint_without_averaged_weights_says_what_to_set(bedroom: State, tmp_path: Path) -> None:
    first = "model_ema.diffusion_modeltime_embed0weight"
    without = {name: tensor for name, tensor in bedroom.items() if not name.startswith("model_ema.")}
    partly = {name: tensor for name, tensor in bedroom.items() if name != first}
    with pytest.raises(
        CheckpointError, match="holds no averaged weights; use a file that does, or set ema: auto or false"
    ):
        convert_checkpoint(saved({"state_dict": without}, tmp_path, ema=True))
    absent = r"holds not all averaged weights \('model\.diffusion_model\.time_embed\.0\.weight' is absent\)"
    for ema in (True, "auto"):
        with pytest.raises(CheckpointError, match=rf"{absent}; use one that does, or set ema: false"):
            convert_checkpoint(saved({"state_dict": partly}, tmp_path, ema=ema))
    assert convert_checkpoint(saved({"state_dict": without}, tmp_path))


def test_a_checkpoint_of_another_width_is_refused_with_the_tensor_and_both_shapes(
    bedroom: State, tmp_path: Path
) -> None:
    model = saved({"state_dict": bedroom}, tmp_path)
    wider = model.architecture.model_copy(update={"channels": 32})
    with pytest.raises(
        CheckpointError,
        match=r"'conv_in\.weight' has shape \(16, 3, 3, 3\), the preset's network \(32, 3, 3, 3\)",
    ):
        convert_checkpoint(model.model_copy(update={"architecture": wider}))


@pytest.mark.parametrize("other", ["ldm8_church", "ldm4_imagenet", "sd14_coco"])
def test_a_checkpoint_of_another_family_is_refused(other: str, bedroom: State, tmp_path: Path) -> None:
    sentence = r"model\.ckpt(: '.+' has shape \(.+\), the preset's network| lacks the tensor '| holds '| does not fit `architecture`)"
    with pytest.raises(CheckpointError, match=sentence):
        convert_checkpoint(saved({"state_dict": bedroom}, tmp_path, other))


def test_blocks_that_are_counted_otherwise_are_refused(bedroom: State, tmp_path: Path) -> None:
    model = saved({"state_dict": bedroom}, tmp_path)
    for changes, sentence in (
        (
            {"multipliers": (1, 2, 2)},
            "it has 4 input blocks, and 3 multipliers with blocks_per_level 1 make 6",
        ),
        (
            {"multipliers": (1,), "blocks_per_level": 3},
            r"its levels have 1 blocks; set architecture\.blocks_per_level to that",
        ),
    ):
        other = model.model_copy(update={"architecture": model.architecture.model_copy(update=changes)})
        with pytest.raises(CheckpointError, match=f"does not fit `architecture`: {sentence}"):
            convert_checkpoint(other)


def test_a_ddim_checkpoint_is_no_compvis_checkpoint(tmp_path: Path) -> None:
    model = saved({"temb.dense.0.weight": torch.zeros(2, 2)}, tmp_path)
    with pytest.raises(
        CheckpointError, match=r"is not in the 'compvis' layout but in 'ddim'; set layout: ddim"
    ):
        convert_checkpoint(model)


@pytest.mark.parametrize("shape", [(), (0, 0), (7, 3, 1), (3,)])
def test_an_attention_of_another_shape_is_refused(
    shape: tuple[int, ...], bedroom: State, tmp_path: Path
) -> None:
    changed = {
        name: torch.zeros(shape) if name.endswith("qkv.weight") else tensor
        for name, tensor in bedroom.items()
    }
    with pytest.raises(CheckpointError, match=r"is no query, key and value of whole heads"):
        convert_checkpoint(saved(changed, tmp_path, ema=False))


def test_a_unet_by_itself_has_no_autoencoder(tmp_path: Path) -> None:
    model = saved(original_unet(tiny("ldm8_church")).state_dict(), tmp_path, "ldm8_church", ema=False)
    assert convert_checkpoint(model)
    with pytest.raises(
        CheckpointError, match=r"holds no autoencoder .*point to the whole original checkpoint"
    ):
        convert_checkpoint(model, "autoencoder")


def test_a_missing_scale_factor_says_what_to_set(tmp_path: Path) -> None:
    state = original_checkpoint(tiny("ldm8_church"))
    del state["scale_factor"]
    with pytest.raises(CheckpointError, match=r"holds no tensor 'scale_factor'; set autoencoder\.scale"):
        convert_checkpoint(saved({"state_dict": state}, tmp_path, "ldm8_church"), "autoencoder")


def test_a_part_that_the_model_lacks_is_refused(bedroom: State, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match="the preset's model has no condition; it has unet, autoencoder"
    ):
        convert_checkpoint(saved({"state_dict": bedroom}, tmp_path), "condition")


def test_a_truncated_checkpoint_is_refused(bedroom: State, tmp_path: Path) -> None:
    model = saved({"state_dict": bedroom}, tmp_path)
    whole = Path(model.checkpoint).read_bytes()
    Path(model.checkpoint).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"model\.ckpt cannot be read as a checkpoint .*is it complete"):
        convert_checkpoint(model)


@pytest.fixture
def lightning(monkeypatch: pytest.MonkeyPatch) -> type:
    """A class of a package that is not installed, as Lightning's checkpoints hold them."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")

    class ModelCheckpoint(dict):
        harmed = False

        def __setstate__(self, state: object) -> None:
            ModelCheckpoint.harmed = True

    ModelCheckpoint.__module__, ModelCheckpoint.__qualname__ = module.__name__, "ModelCheckpoint"
    module.ModelCheckpoint = ModelCheckpoint
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return ModelCheckpoint


def test_objects_of_lightning_are_not_brought_to_life(
    lightning: type, bedroom: State, tmp_path: Path
) -> None:
    callback = lightning(best=0.5)
    callback.monitor = "loss"
    model = saved({"state_dict": bedroom, "callbacks": {lightning: callback}, "epoch": 3}, tmp_path)
    lightning.harmed = False
    for name in [name for name in sys.modules if name.startswith("pytorch_lightning")]:
        del sys.modules[name]
    assert set(read_state(Path(model.checkpoint))) == {
        name for name in bedroom if not name.startswith("model_ema.")
    }
    assert not lightning.harmed
    assert "pytorch_lightning" not in sys.modules
    with pytest.raises(pickle.UnpicklingError):
        torch.load(model.checkpoint, weights_only=True)


def test_a_hostile_lightning_checkpoint_is_refused_and_not_executed(bedroom: State, tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    model = saved({"state_dict": bedroom, "callbacks": Hostile(marker)}, tmp_path)
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        convert_checkpoint(model)
    assert not marker.exists()


def test_a_diffusers_folder_is_taken_part_by_part(tmp_path: Path) -> None:
    model = tiny("sd14_coco", tmp_path)
    assert model.autoencoder is not None
    unet = random_network(build_network(model.architecture), 1)
    autoencoder = random_network(build_autoencoder(model.autoencoder), 2)
    unet.save_pretrained(tmp_path / "unet")
    autoencoder.save_pretrained(tmp_path / "vae")
    for part, network in (("unet", unet), ("autoencoder", autoencoder)):
        converted = convert_checkpoint(model, part)
        assert all(torch.equal(converted[name], tensor) for name, tensor in network.state_dict().items())
    shutil.rmtree(tmp_path / "vae")
    with pytest.raises(
        CheckpointError,
        match=r"holds no weights; a pipeline's folder should have a folder vae or vqvae .*but there is unet",
    ):
        convert_checkpoint(model, "autoencoder")


def test_safetensors_in_the_original_layout_are_taken(bedroom: State, tmp_path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in bedroom.items()}, tmp_path / "model.safetensors")
    model = tiny("ldm4_bedroom", tmp_path / "model.safetensors")
    assert torch.equal(
        convert_checkpoint(model)["conv_in.bias"], bedroom["model_ema.diffusion_modelinput_blocks00bias"]
    )


def test_an_absent_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EdadmError, match=r"there is no file .*absent\.ckpt"):
        convert_checkpoint(tiny("ldm4_bedroom", tmp_path / "absent.ckpt"))
