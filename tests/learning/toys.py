"""Single blocks with random weights, to learn on in a second."""

from __future__ import annotations

import copy

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.config.schema import Bits
from edadm.learning.capture.arguments import Arguments
from edadm.learning.capture.data import UnitData, listening
from edadm.networks.unet.blocks.kinds import KINDS as UNIT_KINDS
from edadm.networks.units.site import sites_of
from edadm.networks.units.trace import unit_of
from edadm.nn.insert import quantize_network, quantized_layers
from edadm.passes.ranges import observing, set_weight_grid
from edadm.quant.streams import Stream

from ..conftest import reinitialise

KINDS = ("plain", "shortcut", "attention", "layer")


def float_block(kind: str, seed: int = 0) -> nn.Module:
    """A res-block without or with shortcut, an attention, or a lone convolution."""
    block: nn.Module
    if kind == "attention":
        block = Attention(16, heads=1, dim_head=16, bias=True, residual_connection=True, norm_num_groups=4)
        block.set_processor(AttnProcessor())
    elif kind == "layer":
        block = nn.Sequential(nn.Conv2d(16, 24, 3, padding=1))
    else:
        out = 16 if kind == "plain" else 24
        block = ResnetBlock2D(in_channels=16, out_channels=out, temb_channels=32, groups=4, eps=1e-6)
    reinitialise(block, seed)
    return block.eval().requires_grad_(False)


def fresh_stream(*key: int | str) -> Stream:
    """A stream before its first step."""
    return Stream.of(*key, step=torch.zeros((), dtype=torch.int32))


def inner_layers(kind: str, block: nn.Module) -> list[str]:
    """The layers whose errors FBR adds: all but the last registered."""
    if kind == "layer":
        return []
    unit = unit_of("unit", block, UNIT_KINDS)
    assert unit is not None
    return [name.removeprefix("unit.") for name in unit.layers[:-1]]


@torch.no_grad()
def unit_data(kind: str, block: nn.Module, rows: int, seed: int) -> UnitData:
    """Smooth inputs with few independent channels, as activations are, and the float block's outputs on them.

    On inputs without structure no rounding is better than another. The quantized network's inputs are
    slightly off.
    """
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(16, 4, generator=torch.Generator().manual_seed(77)) / 2
    factors = F.interpolate(torch.randn(rows, 4, 3, 3, generator=generator), scale_factor=2, mode="bilinear")
    x = (torch.einsum("cf,nfhw->nchw", mixing, factors) + 0.3).contiguous()
    embedding = torch.randn(rows, 2, generator=generator) @ torch.randn(
        2, 32, generator=torch.Generator().manual_seed(78)
    )
    others: tuple[Tensor, ...] = (embedding,) if kind in ("plain", "shortcut") else ()
    with listening(block, inner_layers(kind, block)) as outputs:
        target = block(x, *others)
    noisy = [tensor + 0.02 * torch.randn(tensor.shape, generator=generator) for tensor in (x, *others)]
    return UnitData(
        Arguments(dict(enumerate(noisy))),
        Arguments(dict(enumerate((x, *others)))),
        target,
        dict(outputs),
        channels_last=kind == "attention",
    )


def quantized_block(
    block: nn.Module, data: UnitData, weight_bits: int = 3, splits: dict[str, int] | None = None
) -> nn.Module:
    """A quantized copy with grids set from the data and float weights; `splits` divides the input channels of layers."""
    bits = Bits(weights=weight_bits, activations=8, layers={}, range_bins=512)
    quantized = copy.deepcopy(block)
    channels = {name: block.get_submodule(name).weight.shape[1] for name in splits or {}}
    parts = {name: (main, channels[name] - main) for name, main in (splits or {}).items()}
    quantize_network(quantized, bits, sites_of(quantized, parts))
    for layer in quantized_layers(quantized).values():
        set_weight_grid(layer)
    with observing(quantized, bits), torch.no_grad():
        data.quantized.call(quantized)
    return quantized
