"""Which setting a sentence blames for a tensor that does not fit: the one that was changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edadm.conditions.condition import build_condition_network
from edadm.config.schema import Model
from edadm.networks.autoencoder import build_autoencoder
from edadm.networks.build import build_network
from edadm.networks.settings.parts import Conditioning, TextEncoder
from edadm.networks.weights import CheckpointError, check_fit

from ..families import tiny

State = dict[str, Tensor]


def blamed(theirs: State, ours: State, **options: Any) -> str:
    """The setting in the sentence on a file with their tensors for a preset with ours."""
    with pytest.raises(
        CheckpointError, match=r"^file\.ckpt.*`edadm describe` prints what a file needs"
    ) as caught:
        check_fit(theirs, ours, Path("file.ckpt"), **options)
    sentence = str(caught.value)
    assert "`" in sentence
    return sentence.split("; ", 1)[1].split("`")[1]


def unet_of(model: Model, **changes: Any) -> State:
    with torch.device("meta"):
        return build_network(model.architecture.model_copy(update=changes)).state_dict()


@pytest.mark.parametrize(
    ("name", "change", "setting"),
    [
        ("ldm4_bedroom", {"channels": 32}, "channels"),
        ("ldm4_bedroom", {"in_channels": 4}, "in_channels"),
        ("ldm4_bedroom", {"multipliers": (1, 3)}, "multipliers"),
        ("ldm4_bedroom", {"multipliers": (1, 2, 2)}, "multipliers"),
        ("ldm4_bedroom", {"blocks_per_level": 2}, "blocks_per_level"),
        ("ldm4_bedroom", {"attention_resolutions": (8, 4)}, "attention_resolutions"),
        ("ldm4_bedroom", {"scale_shift": True}, "scale_shift"),
        ("ldm4_bedroom", {"resample": "res_block"}, "resample"),
        ("sd14_coco", {"context_channels": 32}, "context_channels"),
        ("sd14_coco", {"in_channels": 9}, "in_channels"),
        ("sd14_coco", {"multipliers": (2, 2)}, "channels"),
    ],
)
@pytest.mark.parametrize("reverse", [False, True], ids=["file", "preset"])
def test_the_setting_of_a_unet_is_named(
    name: str, change: dict[str, Any], setting: str, reverse: bool
) -> None:
    model = tiny(name)
    states = (unet_of(model, **change), unet_of(model))
    assert blamed(*(reversed(states) if reverse else states)) == f"architecture.{setting}"


def test_diffusers_own_settings_have_their_own_names() -> None:
    model = tiny("sd14_coco")
    assert (
        blamed(unet_of(model, channels=32), unet_of(model), in_diffusers=True)
        == "architecture.diffusers.block_out_channels"
    )
    assert (
        blamed(unet_of(model, in_channels=9), unet_of(model), in_diffusers=True) == "architecture.in_channels"
    )


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"channels": 16}, "channels"),
        ({"multipliers": (1, 4)}, "channels and multipliers"),
        ({"multipliers": (1, 2, 2)}, "multipliers"),
        ({"blocks_per_level": 2}, "blocks_per_level"),
        ({"latent_channels": 8}, "latent_channels"),
        ({"image_channels": 1}, "image_channels"),
        ({"kind": "vq"}, "kind"),
    ],
)
def test_the_setting_of_an_autoencoder_is_named(change: dict[str, Any], setting: str) -> None:
    own = tiny("sd14_coco").autoencoder
    assert own is not None
    with torch.device("meta"):
        theirs, ours = (
            build_autoencoder(settings).state_dict() for settings in (own.model_copy(update=change), own)
        )
    assert blamed(theirs, ours) == f"autoencoder.{setting}"


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"channels": 16}, "channels"),
        ({"layers": 3}, "layers"),
        ({"tokens": 20}, "tokens"),
        ({"hidden_channels": 32}, "hidden_channels"),
    ],
)
def test_the_setting_of_a_text_encoder_is_named(change: dict[str, Any], setting: str) -> None:
    own = TextEncoder(channels=24, hidden_channels=48, layers=2, heads=2, tokens=16)

    def state(encoder: TextEncoder) -> State:
        with torch.device("meta"):
            conditioning = Conditioning(kind="text", prompts="prompts.txt", encoder=encoder)
            return build_condition_network(conditioning, encoder.channels).state_dict()

    assert blamed(state(own.model_copy(update=change)), state(own)) == f"conditioning.encoder.{setting}"


@pytest.mark.parametrize(
    ("shape", "setting"), [((7, 4), "conditioning.classes"), ((6, 5), "architecture.context_channels")]
)
def test_the_setting_of_a_class_embedding_is_named(shape: tuple[int, int], setting: str) -> None:
    assert (
        blamed({"embedding.weight": torch.zeros(shape)}, {"embedding.weight": torch.zeros(6, 4)}) == setting
    )


@pytest.mark.parametrize("shape", [(), (0,), (0, 4)])
def test_a_tensor_without_numbers_is_damage(shape: tuple[int, ...]) -> None:
    with pytest.raises(CheckpointError, match=r"it has no numbers, so the file is damaged"):
        check_fit(
            {"embedding.weight": torch.zeros(shape)},
            {"embedding.weight": torch.zeros(6, 4)},
            Path("file.ckpt"),
        )


@pytest.mark.parametrize("part", ["weight_g", "weight_orig", "parametrizations.weight.original0"])
def test_a_weight_that_is_yet_to_be_computed_is_named(part: str) -> None:
    ours = unet_of(tiny("sd14_coco"))
    theirs = {name: tensor for name, tensor in ours.items() if name != "conv_in.weight"}
    theirs[f"conv_in.{part}"] = ours["conv_in.weight"]
    with pytest.raises(CheckpointError, match=rf"holds 'conv_in\.{part}'.*remove that parametrization"):
        check_fit(theirs, ours, Path("file.ckpt"))
