"""Settings of a U-Net as diffusers names them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from edadm.networks.settings.strict import Count, Strict

Activation = Literal["silu", "swish", "gelu", "mish", "relu"]
DownBlock = Literal["DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D", "CrossAttnDownBlock2D"]
UpBlock = Literal["UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D", "CrossAttnUpBlock2D"]
_OF_UNCONDITIONAL = ("downsample_type", "upsample_type", "attn_norm_num_groups", "add_attention")
_OF_CONDITIONAL = (
    "transformer_layers_per_block",
    "only_cross_attention",
    "use_linear_projection",
    "upcast_attention",
    "resnet_skip_time_act",
    "resnet_out_scale_factor",
    "time_embedding_act_fn",
    "timestep_post_act",
    "conv_in_kernel",
    "conv_out_kernel",
)


class DiffusersUNet(Strict):
    """Settings of a diffusers U-Net by the names of its `config.json`, with diffusers' defaults.

    Only those on which its arithmetic depends, and of them only those that the rest of this package can
    quantize. Sizes of what goes in (`sample_size`, `in_channels`, `cross_attention_dim`) are
    `Architecture`'s.
    """

    class_name: Literal["UNet2DModel", "UNet2DConditionModel"]
    block_out_channels: tuple[Count, ...] = Field(
        min_length=1, description="channels of each level, the finest first"
    )
    down_block_types: tuple[DownBlock, ...]
    up_block_types: tuple[UpBlock, ...]
    layers_per_block: Count | tuple[Count, ...] = 2
    attention_head_dim: Count | tuple[Count, ...] | None = Field(
        8,
        description="channels of a head (UNet2DModel), or, by a mistake that diffusers keeps, their number "
        "(UNet2DConditionModel)",
    )
    norm_num_groups: Count = 32
    norm_eps: float = Field(1e-5, gt=0)
    act_fn: Activation = "silu"
    center_input_sample: bool = Field(False, description="the network sees 2 x - 1")
    flip_sin_to_cos: bool = Field(True, description="cosines stand first in the embedding of time")
    freq_shift: int | float = 0
    time_embedding_dim: Count | None = None
    downsample_padding: Annotated[int, Field(ge=0)] = Field(
        1, description="0 pads at the right and bottom alone"
    )
    mid_block_scale_factor: int | float = Field(1, gt=0)
    resnet_time_scale_shift: Literal["default", "scale_shift"] = "default"
    downsample_type: Literal["conv", "resnet"] = Field(
        "conv", description="of levels with attention (UNet2DModel)"
    )
    upsample_type: Literal["conv", "resnet"] = Field(
        "conv", description="of levels with attention (UNet2DModel)"
    )
    attn_norm_num_groups: Count | None = Field(
        None, description="groups in the middle's attention (UNet2DModel)"
    )
    add_attention: bool = Field(True, description="in the middle (UNet2DModel)")
    transformer_layers_per_block: Count | tuple[Count, ...] = 1
    only_cross_attention: bool | tuple[bool, ...] = False
    use_linear_projection: bool = False
    upcast_attention: bool = False
    resnet_skip_time_act: bool = False
    resnet_out_scale_factor: int | float = Field(1, gt=0)
    time_embedding_act_fn: Activation | None = None
    timestep_post_act: Activation | None = None
    conv_in_kernel: Count = 3
    conv_out_kernel: Count = 3

    @model_validator(mode="after")
    def _settings_belong_to_the_class(self) -> DiffusersUNet:
        foreign = _OF_CONDITIONAL if self.class_name == "UNet2DModel" else _OF_UNCONDITIONAL
        for name in foreign:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"a {self.class_name} has no setting '{name}'; remove it")
        levels = len(self.block_out_channels)
        for name in ("down_block_types", "up_block_types"):
            if len(getattr(self, name)) != levels:
                raise ValueError(
                    f"{name} names {len(getattr(self, name))} blocks for {levels} levels; name one for each"
                )
        groups = self.norm_num_groups
        if odd := [width for width in self.block_out_channels if width % groups]:
            raise ValueError(
                f"norm_num_groups {groups} does not divide the {odd[0]} channels of a level; take a divisor "
                "of all"
            )
        across = [
            block for block in (*self.down_block_types, *self.up_block_types) if block.startswith("CrossAttn")
        ]
        if across and self.class_name == "UNet2DModel":
            raise ValueError(f"a UNet2DModel has no '{across[0]}'; use class_name: UNet2DConditionModel")
        return self

    @property
    def own(self) -> dict[str, Any]:
        """The settings that the class knows, by name, without the class's."""
        foreign = _OF_CONDITIONAL if self.class_name == "UNet2DModel" else _OF_UNCONDITIONAL
        return {name: value for name, value in self if name != "class_name" and name not in foreign}
