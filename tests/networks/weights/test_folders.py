"""Folders as diffusers and transformers write them: variants, shards, averaged weights beside raw ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from edadm.config.schema import Model
from edadm.networks.build import build_network
from edadm.networks.convert import convert_checkpoint
from edadm.networks.settings.architecture import Architecture
from edadm.networks.weights import CheckpointError
from edadm.networks.weights.folders import find_weights, read_weights

from ...conftest import reinitialise

SIZES = {
    "image_size": 8,
    "channels": 8,
    "multipliers": (1, 2),
    "blocks_per_level": 1,
    "attention_resolutions": (4,),
    "norm_groups": 4,
}
State = dict[str, Tensor]


def network(seed: int) -> UNet2DModel:
    unet = build_network(Architecture(**SIZES))
    reinitialise(unet, seed)
    return unet


@pytest.fixture(scope="module")
def raw() -> UNet2DModel:
    return network(1)


@pytest.fixture(scope="module")
def averaged() -> UNet2DModel:
    return network(2)


def same(path: Path, unet: UNet2DModel, wanted: Any = "auto") -> bool:
    state, expected = read_weights(find_weights(path, "unet", wanted).path), unet.state_dict()
    return set(state) == set(expected) and all(
        torch.equal(state[name].float(), expected[name]) for name in expected
    )


@pytest.mark.parametrize("variant", [None, "fp16", "non_ema", "ema"])
@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize("shard", ["10GB", "20KB"], ids=["whole", "shards"])
def test_every_way_in_which_diffusers_writes_weights_is_read(
    variant: str | None, safe: bool, shard: str, raw: UNet2DModel, tmp_path: Path
) -> None:
    raw.save_pretrained(tmp_path / "unet", variant=variant, safe_serialization=safe, max_shard_size=shard)
    assert (len(list((tmp_path / "unet").glob("*.json"))) == 2) == (shard == "20KB")
    assert same(tmp_path, raw)
    assert same(tmp_path / "unet", raw)


def test_both_spellings_of_an_index_with_a_variant_are_known(raw: UNet2DModel, tmp_path: Path) -> None:
    raw.save_pretrained(tmp_path, variant="fp16", max_shard_size="20KB")
    (written,) = tmp_path.glob("*.index*.json")
    spellings = (
        "diffusion_pytorch_model.safetensors.index.fp16.json",
        "diffusion_pytorch_model.fp16.safetensors.index.json",
    )
    assert written.name in spellings
    for spelling in spellings:
        written = written.rename(tmp_path / spelling)
        assert same(tmp_path, raw)


@pytest.mark.parametrize(
    ("variants", "wanted", "expected"),
    [
        (("", "non_ema"), "auto", ""),
        (("", "non_ema"), True, ""),
        (("", "non_ema"), False, ".non_ema"),
        (("", "ema"), "auto", ".ema"),
        (("", "ema"), False, ""),
        (("", "fp16"), "auto", ""),
        (("fp16", "non_ema"), "auto", ".fp16"),
        (("bf16", "fp16"), "auto", ".bf16"),
        (("fp16.ema", "fp16", "non_ema"), True, ".fp16.ema"),
        (("", "other"), "auto", ""),
    ],
)
def test_the_choice_among_variants_is_the_averaged_then_the_precise(
    variants: tuple[str, ...], wanted: Any, expected: str, tmp_path: Path
) -> None:
    for variant in variants:
        name = f"diffusion_pytorch_model.{variant}".rstrip(".")
        (tmp_path / f"{name}.bin").touch()
        (tmp_path / f"{name}.safetensors").touch()
    assert (
        find_weights(tmp_path, "unet", wanted).path.name == f"diffusion_pytorch_model{expected}.safetensors"
    )


def test_several_variants_of_unknown_names_are_refused(tmp_path: Path) -> None:
    for variant in ("step1000", "step2000"):
        (tmp_path / f"diffusion_pytorch_model.{variant}.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"several variants .*step2000.*; point `checkpoint` to one"):
        find_weights(tmp_path, "unet")


def test_shards_are_taken_before_a_whole_file_as_diffusers_does_unless_some_are_absent(
    raw: UNet2DModel, averaged: UNet2DModel, tmp_path: Path
) -> None:
    averaged.save_pretrained(tmp_path)
    raw.save_pretrained(tmp_path, max_shard_size="20KB")
    theirs = UNet2DModel.from_pretrained(tmp_path).state_dict()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in raw.state_dict().items())
    assert same(tmp_path, raw)
    next(tmp_path.glob("*-00001-of-*")).unlink()
    assert same(tmp_path, averaged)


def test_averaged_weights_beside_raw_ones_are_taken_as_wanted(
    raw: UNet2DModel, averaged: UNet2DModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw.save_pretrained(tmp_path / "unet")
    averaged.save_pretrained(tmp_path / "unet_ema")
    assert same(tmp_path, averaged)
    assert "took the averaged weights in unet_ema" in capsys.readouterr().err
    assert same(tmp_path, averaged, wanted=True)
    assert same(tmp_path, raw, wanted=False)
    assert same(tmp_path / "unet", raw)
    assert "the averaged ones are beside them" in capsys.readouterr().err
    assert same(tmp_path / "unet_ema", averaged, wanted=True)
    for path, wanted in ((tmp_path / "unet", True), (tmp_path / "unet_ema", False)):
        with pytest.raises(CheckpointError, match="set ema: auto"):
            find_weights(path, "unet", wanted)


def test_averages_that_diffusers_has_saved_say_so_wherever_they_lie(
    raw: UNet2DModel, averaged: UNet2DModel, model: Model, tmp_path: Path
) -> None:
    average = EMAModel(averaged.parameters(), model_cls=UNet2DModel, model_config=raw.config)
    average.save_pretrained(tmp_path / "mine")
    assert same(tmp_path / "mine", averaged, wanted=True)
    with pytest.raises(CheckpointError, match="holds averaged weights alone"):
        find_weights(tmp_path / "mine", "unet", False)
    sizes = Architecture(**SIZES)
    preset = model.model_copy(
        update={"architecture": sizes, "checkpoint": str(tmp_path / "mine"), "ema": True}
    )
    assert torch.equal(convert_checkpoint(preset)["conv_in.bias"], averaged.state_dict()["conv_in.bias"])


def test_averaged_weights_that_no_name_tells_of_are_not_there(raw: UNet2DModel, tmp_path: Path) -> None:
    raw.save_pretrained(tmp_path / "unet")
    with pytest.raises(
        CheckpointError, match=r"does not say that it holds averaged weights .*or set ema: auto"
    ):
        find_weights(tmp_path, "unet", True)
    assert (
        find_weights(tmp_path / "unet", "autoencoder", True).path.name
        == "diffusion_pytorch_model.safetensors"
    )


def lost(folder: Path, index: Path) -> None:
    sorted(folder.glob("*-0*"))[1].unlink()


def elsewhere(folder: Path, index: Path) -> None:
    content = json.loads(index.read_text())
    content["weight_map"]["conv_in.weight"] = "../secret.safetensors"
    index.write_text(json.dumps(content))


def lacking(folder: Path, index: Path) -> None:
    shard = folder / json.loads(index.read_text())["weight_map"]["conv_in.weight"]
    state = {name: tensor.clone() for name, tensor in load_file(shard).items() if name != "conv_in.weight"}
    save_file(state, shard)


def swapped(folder: Path, index: Path) -> None:
    first, second = sorted(folder.glob("*-0*"))[:2]
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def endless(folder: Path, index: Path) -> None:
    index.write_text(json.dumps({"weight_map": {"conv_in.weight": "a" * 5000}}))


def without_map(folder: Path, index: Path) -> None:
    index.write_text('{"metadata": {}}')


def without_index(folder: Path, index: Path) -> None:
    index.unlink()


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lost, r"lacks 'diffusion_pytorch_model-00002-of-\d+\.safetensors', which .*\.index\.json names"),
        (elsewhere, r"names the file '\.\./secret\.safetensors' outside its folder"),
        (lacking, r"lacks the tensor 'conv_in\.weight', which .* places there"),
        (swapped, r"(lacks the tensor|holds) '.+', which .* place"),
        (endless, r"lacks 'a+\.\.\.', which .* names"),
        (
            without_map,
            r"cannot be read as an index of weights, JSON with a 'weight_map' \(it lacks 'weight_map'\)",
        ),
        (without_index, r"the shards' index \(\.index\.json\) is missing"),
    ],
)
def test_shards_that_are_not_whole_are_refused(
    damage: Callable[[Path, Path], None], sentence: str, raw: UNet2DModel, tmp_path: Path
) -> None:
    raw.save_pretrained(tmp_path, max_shard_size="20KB")
    (index,) = tmp_path.glob("*.index.json")
    damage(tmp_path, index)
    with pytest.raises(CheckpointError, match=sentence):
        read_weights(find_weights(tmp_path, "unet").path)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ((), "but it is empty; point `checkpoint` to"),
        (("config.json", "model.onnx"), r"but there is config\.json, model\.onnx; point"),
        (("openvino_model.bin", "pytorch_lora_weights.safetensors"), r"; point `checkpoint` to a pipeline's"),
        (("v1-5-pruned.safetensors",), r"point `checkpoint` to one file, such as .*v1-5-pruned\.safetensors"),
        (("snapshots/abc/unet/x",), r"cache of the Hub, point `checkpoint` to .*snapshots/abc"),
    ],
)
def test_a_folder_without_weights_says_what_is_there(
    files: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("{}")
    with pytest.raises(CheckpointError, match=rf"holds no weights; .*{sentence}"):
        find_weights(tmp_path, "unet")


def test_one_file_of_several_is_no_checkpoint(raw: UNet2DModel, tmp_path: Path) -> None:
    raw.save_pretrained(tmp_path, max_shard_size="20KB")
    first = sorted(tmp_path.glob("*-00001-*"))[0]
    with pytest.raises(
        CheckpointError, match=r"is one of several files that belong together; point to their index or folder"
    ):
        find_weights(first, "unet")
    (index,) = tmp_path.glob("*.index.json")
    assert same(index, raw)


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "diffusion_pytorch_model.safetensors").symlink_to(tmp_path / "blobs" / "absent")
    with pytest.raises(CheckpointError, match=r"diffusion_pytorch_model\.safetensors is a link to nothing"):
        find_weights(tmp_path, "unet")
