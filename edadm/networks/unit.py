"""What is reconstructed at once: blocks, attentions, and the layers outside them, in order of execution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from edadm.networks.inputs import InputSpec, network_call
from edadm.networks.unet.build import UNet

Kind = Literal["res_block", "attention", "transformer", "layer"]


@dataclass(frozen=True)
class Unit:
    """A module of the U-Net by name, and its convolutions and linear layers by full name, in registration order."""

    name: str
    kind: Kind
    layers: tuple[str, ...]


def _kind(module: nn.Module) -> Kind | None:
    if isinstance(module, ResnetBlock2D):
        return "res_block"
    if isinstance(module, BasicTransformerBlock):
        return "transformer"
    if isinstance(module, Attention):
        return "attention"
    return "layer" if isinstance(module, nn.Conv2d | nn.Linear) else None


# The order in which the original networks register a block's layers (method, 4.3); FBR leaves out the last
# one.
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
_FEED_FORWARD = ("ff.net.0.proj", "ff.net.2")
_REGISTRATION = {
    "res_block": ("conv1", "time_emb_proj", "conv2", "conv_shortcut"),
    "attention": _ATTENTION,
    "transformer": (*(f"attn1.{p}" for p in _ATTENTION), *_FEED_FORWARD, *(f"attn2.{p}" for p in _ATTENTION)),
}
# The same, but with the layer at the end whose output is the block's (before residuals).
_EXECUTION = {
    "res_block": ("conv1", "time_emb_proj", "conv_shortcut", "conv2"),
    "attention": _ATTENTION,
    "transformer": (*(f"attn1.{p}" for p in _ATTENTION), *(f"attn2.{p}" for p in _ATTENTION), *_FEED_FORWARD),
}
Exclude = Literal["last_registered", "true_last"]


def _layers(
    name: str, module: nn.Module, kind: Kind, exclude: Exclude = "last_registered"
) -> tuple[str, ...]:
    if kind == "layer":
        return (name,)
    present = [child for child, layer in module.named_modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    order = (_REGISTRATION if exclude == "last_registered" else _EXECUTION)[kind]
    present = [child for child in order if child in present]
    return tuple(f"{name}.{child}" for child in present)


@torch.no_grad()
def trace_units(unet: UNet, by_layer: bool = False, exclude: Exclude = "last_registered") -> list[Unit]:
    """The units of a float U-Net in the order in which one forward pass reaches them (method, 4.1).

    Registration order would not do: diffusers registers `mid_block` after `up_blocks`.

    Args:
        unet: the network.
        by_layer: every convolution and linear layer is a unit, wherever it lies.
        exclude: which layer stands last in a unit, and so has no error of its own: the last registered one,
            as in the official code (quirk Q7: a shortcut, or the second attention's output), or the last one
            executed.
    """
    reached: list[Unit] = []
    depth = 0
    handles = []

    def enter(name: str, module: nn.Module, kind: Kind) -> None:
        nonlocal depth
        if depth == 0:
            reached.append(Unit(name, kind, _layers(name, module, kind, exclude)))
        depth += 1

    def leave() -> None:
        nonlocal depth
        depth -= 1

    for name, module in unet.named_modules():
        if (kind := _kind(module)) and (kind == "layer" or not by_layer):
            handles.append(module.register_forward_pre_hook(lambda m, _, n=name, k=kind: enter(n, m, k)))
            handles.append(module.register_forward_hook(lambda *_: leave()))
    try:
        parameter = next(unet.parameters())
        network_call(unet, _inputs(unet).zeros(1, parameter.device, parameter.dtype))
    finally:
        for handle in handles:
            handle.remove()
    return reached


def _inputs(unet: UNet) -> InputSpec:
    """What a U-Net takes, with one token of context if it takes any."""
    size, channels = unet.config["sample_size"], unet.config.get("cross_attention_dim")
    shapes: dict[str, tuple[int, ...]] = {
        "latents": (unet.config["in_channels"], size, size),
        "timesteps": (),
    }
    return InputSpec(shapes if channels is None else shapes | {"context": (1, channels)})
