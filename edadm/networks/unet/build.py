"""The U-Nets of the published runs as diffusers modules."""

from __future__ import annotations

from typing import Any, TypeAlias

from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor
from torch import nn

from edadm.config.networks import UNetArchitecture
from edadm.errors import EdadmError

UNet: TypeAlias = UNet2DModel | UNet2DConditionModel


def build_unet(architecture: UNetArchitecture) -> UNet:
    """A randomly initialised U-Net with the arithmetic of the original code; outputs agree to rounding (tests/networks).

    Attentions multiply explicitly, as in the quantized network, not in a fused kernel.

    Raises:
        EdadmError: diffusers knows no such network.
    """
    unet = _BUILDERS[architecture.family](architecture)
    for module in unet.modules():
        if isinstance(module, Attention):
            module.set_processor(AttnProcessor())
    return unet


def feature_module(unet: UNet) -> nn.Module:
    """Whose input TDAC compares: the middle's attention, or what follows in a network without one there; the input is the same."""
    middle: nn.Module = unet.mid_block.attentions[0] or unet.mid_block.resnets[1]
    return middle


def _sizes(architecture: UNetArchitecture) -> dict[str, Any]:
    """What all families have in common."""
    return {
        "sample_size": architecture.image_size,
        "in_channels": architecture.in_channels,
        "out_channels": architecture.in_channels,
        "block_out_channels": [architecture.channels * multiplier for multiplier in architecture.multipliers],
        "layers_per_block": architecture.blocks_per_level,
        "norm_num_groups": architecture.norm_groups,
    }


def _attends(architecture: UNetArchitecture) -> list[bool]:
    """Whether each level has attention, the finest first."""
    levels = range(len(architecture.multipliers))
    return [architecture.image_size >> level in architecture.attention_resolutions for level in levels]


def _ddim(architecture: UNetArchitecture) -> UNet2DModel:
    """ermongroup/ddim: bottom-right padding of stride-2 convolutions, sine before cosine, epsilon 1e-6, one head."""
    attends = _attends(architecture)
    return UNet2DModel(
        **_sizes(architecture),
        down_block_types=["AttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        up_block_types=["AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        attention_head_dim=None,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
    )


def _ldm(architecture: UNetArchitecture) -> UNet2DModel:
    """CompVis' U-Net without condition: symmetric padding, cosine before sine, epsilon 1e-5.

    A diffusers configuration knows a head's channels only; a number of heads is put into each attention
    afterwards.
    """
    attends = _attends(architecture)
    resnet = architecture.resample == "res_block"
    plain = ("ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D") if resnet else ("DownBlock2D", "UpBlock2D")
    unet = UNet2DModel(
        **_sizes(architecture),
        down_block_types=["AttnDownBlock2D" if a else plain[0] for a in attends],
        up_block_types=["AttnUpBlock2D" if a else plain[1] for a in reversed(attends)],
        attention_head_dim=architecture.head_channels or architecture.channels,
        norm_eps=1e-5,
        downsample_padding=1,
        downsample_type="resnet" if resnet else "conv",
        upsample_type="resnet" if resnet else "conv",
        resnet_time_scale_shift="scale_shift" if architecture.scale_shift else "default",
        attn_norm_num_groups=architecture.norm_groups,  # with scale_shift the middle attention has no norm otherwise
        flip_sin_to_cos=True,
        freq_shift=0,
    )
    for module in unet.modules():
        if isinstance(module, Attention):
            module.operands_scaled = True  # query and key are scaled before they are quantized (method, 3.4)
            if architecture.heads:
                module.heads = architecture.heads
                module.scale = (module.inner_dim // architecture.heads) ** -0.5
    return unet


def _transformer(architecture: UNetArchitecture) -> UNet2DConditionModel:
    """CompVis' U-Net with SpatialTransformers of depth 1 over a context.

    A diffusers configuration takes the number of heads, under the name of their channels.
    """
    attends = _attends(architecture)
    heads: int | list[int] | None = architecture.heads
    if architecture.head_channels:
        heads = [channels // architecture.head_channels for channels in architecture.level_channels]
    return UNet2DConditionModel(
        **_sizes(architecture),
        down_block_types=["CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends],
        up_block_types=["CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)],
        cross_attention_dim=architecture.context_channels,
        attention_head_dim=heads,
        norm_eps=1e-5,
    )


def _diffusers(architecture: UNetArchitecture) -> UNet:
    """What a `config.json` says; diffusers itself says what it cannot build."""
    assert architecture.diffusers is not None
    settings = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in architecture.diffusers.own.items()
    }
    channels = architecture.in_channels
    settings |= {"sample_size": architecture.image_size, "in_channels": channels, "out_channels": channels}
    try:
        if architecture.diffusers.class_name == "UNet2DModel":
            return UNet2DModel(**settings)
        return UNet2DConditionModel(**settings, cross_attention_dim=architecture.context_channels)
    except (ValueError, TypeError, LookupError, ZeroDivisionError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise EdadmError(
            f"diffusers builds no {architecture.diffusers.class_name} of these settings: {reason}"
        ) from None


_BUILDERS = {"ddim": _ddim, "ldm": _ldm, "transformer": _transformer, "diffusers": _diffusers}
