"""Calls of pipelines and packages that change where and how a network computes, on every back-end."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import (
    ControlNetModel,
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from torch import Tensor, nn

from edadm.deploy.diffusers import QuantizedUNet, QuantizedUNet2DConditionModel, QuantizedUNet2DModel
from edadm.errors import EdadmError

from ..conftest import BACKENDS, Made, output

PARTS = ("vae", "text_encoder", "tokenizer", "safety_checker", "feature_extractor", "image_encoder")
REFUSED: dict[str, tuple[Callable[[Any], object], str]] = {
    "casting": (
        lambda unet: unet.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32),
        "layerwise casting finds no weights",
    ),
    "ControlNet": (
        lambda unet: ControlNetModel.from_unet(unet),
        "make that from the network in full precision",
    ),
    "IP-Adapter, unloaded": (
        lambda unet: [processor.__class__() for processor in unet.attn_processors.values()],
        "never has an IP-Adapter; leave the call out",
    ),
    "training": (lambda unet: unet.train(), "is frozen and stays in inference mode"),
    "configuration": (
        lambda unet: type(unet).from_config(unet.config),
        "load its folder with from_pretrained",
    ),
}


@pytest.mark.parametrize("call", REFUSED)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_finds_no_weights_is_refused(
    backend: str, call: str, made: Made, networks: dict[str, QuantizedUNet]
) -> None:
    if call == "IP-Adapter, unloaded" and "gpu" in backend:
        pytest.skip("these have diffusers' own processors, or none, and the next call is the one refused")
    act, words = REFUSED[call]
    expected = output(networks[backend], made[2])
    with pytest.raises(EdadmError, match=words):
        act(networks[backend])
    assert torch.equal(output(networks[backend], made[2]), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_token_merging_is_refused_where_its_blocks_are_not(
    backend: str, networks: dict[str, QuantizedUNet]
) -> None:
    unet = copy.copy(networks[backend])
    if backend != "gpu":
        unet._tome_info = {"hooks": []}
        assert unet._tome_info == {"hooks": []}
    else:
        with pytest.raises(EdadmError, match="token merging finds no blocks of diffusers"):
            unet._tome_info = {"hooks": []}


@pytest.mark.parametrize("backend", BACKENDS)
def test_another_pipeline_takes_the_network_over(backend: str, networks: dict[str, QuantizedUNet]) -> None:
    nothing = dict.fromkeys(PARTS)
    pipeline = StableDiffusionPipeline(
        unet=networks[backend], scheduler=DDIMScheduler(), **nothing, requires_safety_checker=False
    )
    assert StableDiffusionImg2ImgPipeline.from_pipe(pipeline).unet is networks[backend]


def test_a_class_is_equal_to_that_of_diffusers_and_to_no_other() -> None:
    assert QuantizedUNet2DModel == UNet2DModel
    assert QuantizedUNet2DConditionModel in (UNet2DConditionModel,)
    assert QuantizedUNet2DModel not in (UNet2DConditionModel, QuantizedUNet2DConditionModel, nn.Module)
    assert len({UNet2DModel, QuantizedUNet2DModel}) == 2


class Visiting:
    """A hook in the way of those of off-loading: a module's own tensors are there only while it is called."""

    def __init__(self, module: nn.Module):
        self.module, self.inner = module, module.forward
        self.own = {name: p.data for name, p in module.named_parameters(recurse=False)}
        module.forward = self  # type: ignore[assignment]
        self.away()

    def away(self) -> None:
        for name, tensor in self.own.items():
            getattr(self.module, name).data = torch.full_like(tensor, torch.nan)

    def __call__(self, *args: Any, **named: Any) -> Any:
        for name, tensor in self.own.items():
            getattr(self.module, name).data = tensor
        try:
            return self.inner(*args, **named)
        finally:
            self.away()


@pytest.mark.parametrize("backend", ["simulated", "cpu", "gpu", "gpu, not fused"])
def test_parameters_need_be_there_only_while_their_module_is_called(backend: str, made: Made) -> None:
    unet = BACKENDS[backend](made[1])
    expected = output(unet, made[2])
    for module in list(unet.modules()):
        if any(True for _ in module.named_parameters(recurse=False)):
            Visiting(module)
    assert all(parameter.isnan().all() for parameter in unet.parameters())
    assert torch.equal(output(unet, made[2]), expected)


def test_leaves_of_integers_on_a_gpu_are_not_off_loaded_alone(networks: dict[str, QuantizedUNet]) -> None:
    for arguments, named in (((), {"offload_type": "leaf_level"}), ((torch.device("cpu"), "leaf_level"), {})):
        with pytest.raises(EdadmError, match="take offload_type='block_level'"):
            networks["gpu"].enable_group_offload(torch.device("cpu"), *arguments, **named)


def _bad(rows: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    if kind == "type":
        return {**rows, "latents": rows["latents"].double(), "context": rows["context"].double()}
    return (
        {**rows, "latents": rows["latents"][:, 1:]}
        if kind == "latents"
        else {**rows, "context": rows["context"][..., 1:]}
    )


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("type", r"(was|were) given torch\.float64"),
        ("latents", "takes 4 channels and was given 3"),
        ("context", r"takes \d+ channels and was given \d+; look at the channels of the latents"),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_inputs_of_other_types_and_widths_are_refused(
    backend: str, kind: str, words: str, made: Made, networks: dict[str, QuantizedUNet]
) -> None:
    with pytest.raises(EdadmError, match=words):
        output(networks[backend], _bad(made[2], kind))
