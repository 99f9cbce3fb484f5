"""Networks as settings: their sizes, and what they are told.

The part of the schema that describes a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_serializer, model_validator

Count = Annotated[int, Field(ge=1, le=10**9)]


class Strict(BaseModel):
    """Settings that refuse unknown keys, later changes, and values of another type.

    "5" and true are no numbers, .inf and .nan none to work with.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, populate_by_name=True, strict=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _lists_are_kept_as_tuples(cls, settings: Any) -> Any:
        if not isinstance(settings, dict):
            return settings
        return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}


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
    `UNetArchitecture`'s.
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


class UNetArchitecture(Strict):
    """Sizes of a U-Net, and the original code whose arithmetic it has.

    `ddim`: ermongroup/ddim, single-head attention. `ldm`: CompVis/latent-diffusion without condition.
    `transformer`: the same
    code with SpatialTransformers of depth 1 over a context (class-conditional LDM, Stable Diffusion).
    `diffusers`: whatever the `config.json` of a diffusers U-Net says; `diffusers` holds its settings, and
    those below `in_channels` are not used.
    """

    family: Literal["ddim", "ldm", "transformer", "diffusers"] = "ddim"
    image_size: Count = Field(
        32, description="height and width of what the network sees: pixels, or latents of an autoencoder"
    )
    in_channels: Count = 3
    channels: Count = Field(128, description="channels of the first level")
    multipliers: tuple[Count, ...] = Field(
        (1, 2, 2, 2), description="channels of each level, as multiples of the first"
    )
    blocks_per_level: Count = Field(
        2, description="res-blocks per level on the way down; one more on the way up"
    )
    attention_resolutions: tuple[Count, ...] = Field(
        (16,), description="heights of the feature maps with attention beside the middle"
    )
    norm_groups: Count = Field(32, description="groups of every GroupNorm")
    heads: Count | None = Field(None, description="heads of every attention (ldm, transformer)")
    head_channels: Count | None = Field(
        None, description="channels of a head, instead of their number (ldm, transformer)"
    )
    scale_shift: bool = Field(
        False, description="the time embedding scales and shifts (FiLM) instead of being added (ldm)"
    )
    resample: Literal["convolution", "res_block"] = Field(
        "convolution", description="what halves and doubles resolutions (ldm)"
    )
    context_channels: Count | None = Field(
        None, description="channels of a context token (transformer, diffusers' UNet2DConditionModel)"
    )
    diffusers: DiffusersUNet | None = Field(
        None, description="settings of the U-Net as its config.json names them (diffusers)"
    )

    @model_validator(mode="after")
    def _settings_belong_to_the_family(self) -> UNetArchitecture:
        common = {"family", "image_size", "in_channels"}
        settings = set(type(self).model_fields) - common
        given = {name for name in settings if getattr(self, name) != type(self).model_fields[name].default}
        sizes = {"channels", "multipliers", "blocks_per_level", "attention_resolutions", "norm_groups"}
        known = {
            "ddim": sizes,
            "ldm": sizes | {"heads", "head_channels", "scale_shift", "resample"},
            "transformer": sizes | {"heads", "head_channels", "context_channels"},
            "diffusers": {"context_channels", "diffusers"},
        }
        if foreign := sorted(given - known[self.family]):
            raise ValueError(
                f"the family '{self.family}' has no setting '{foreign[0]}'; remove it, or choose another "
                "family"
            )
        if self.family == "transformer" and not (
            self.context_channels and (self.heads or self.head_channels)
        ):
            raise ValueError(
                "the family 'transformer' needs heads and context_channels; head_channels may stand for heads"
            )
        if self.family in ("ldm", "transformer") and (self.heads is None) == (self.head_channels is None):
            raise ValueError(f"the family '{self.family}' needs either heads or head_channels")
        if self.family == "diffusers":
            self._check_diffusers()
        return self

    def _check_diffusers(self) -> None:
        if self.diffusers is None:
            raise ValueError("the family 'diffusers' needs its settings; `edadm describe FOLDER` prints them")
        across = self.diffusers.class_name == "UNet2DConditionModel"
        if across != (self.context_channels is not None):
            fix = "set context_channels to its cross_attention_dim" if across else "remove context_channels"
            raise ValueError(f"a {self.diffusers.class_name} has {'a' if across else 'no'} context; {fix}")
        halved = 2 ** (len(self.diffusers.block_out_channels) - 1)
        if self.image_size % halved:
            raise ValueError(
                f"image_size {self.image_size} cannot be halved once per level; take a multiple of {halved}"
            )

    @model_serializer(mode="wrap")
    def _without_what_others_have(self, serialise: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Files of the families without settings of diffusers stay as they were before there were any."""
        settings = serialise(self)
        if self.diffusers is None:
            settings.pop("diffusers", None)
        return settings

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of each level, the finest first."""
        if self.diffusers is not None:
            return self.diffusers.block_out_channels
        return tuple(self.channels * multiplier for multiplier in self.multipliers)

    @property
    def has_context(self) -> bool:
        """Whether the network attends to a condition."""
        return self.context_channels is not None


class Autoencoder(Strict):
    """From latents to images (CompVis/latent-diffusion); never quantized.

    `vq` snaps latents to a codebook before it decodes them, `kl` does not.
    """

    kind: Literal["vq", "kl"]
    latent_channels: Count = 3
    image_channels: Count = 3
    channels: Count = Field(128, description="channels of the first level")
    multipliers: tuple[Count, ...] = Field(
        (1, 2, 4), description="channels of each level; every level but the last halves the resolution"
    )
    blocks_per_level: Count = 2
    codes: Count = Field(8192, description="entries of the codebook (vq)")
    norm_groups: Count = 32
    checkpoint: str | None = Field(
        None,
        min_length=1,
        description="a file or folder of a VAE, instead of the one in the model's checkpoint",
    )
    scale: Annotated[float, Field(gt=0)] | None = Field(
        1.0,
        description="the network sees latents times this number; null reads it from the checkpoint's "
        "`scale_factor`",
    )

    @property
    def factor(self) -> int:
        """Image height by latent height."""
        return 2 ** (len(self.multipliers) - 1)


class TextEncoder(Strict):
    """Sizes of a CLIP text encoder; the defaults are ViT-L/14's. Its vocabulary is CLIP's (49,408 tokens)."""

    channels: Count = 768
    hidden_channels: Count = 3072
    layers: Count = 12
    heads: Count = 12
    tokens: Count = Field(77, description="length of every prompt, padded")
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    padding: Literal["end_of_text", "zero"] = Field(
        "end_of_text", description="what pads a prompt; SD 2.x pads with zeros"
    )


class Conditioning(Strict):
    """What the network is told about each image, by the image's index."""

    kind: Literal["classes", "text"]
    guidance: float = Field(
        1.0, ge=1, description="classifier-free guidance scale; 1 leaves out the unconditional evaluation"
    )
    classes: Count = Field(
        1000, description="number of classes; one more embedding stands for no condition (classes)"
    )
    images_per_class: Count = Field(
        50, description="of each class so many among the images, in shuffled order (classes)"
    )
    only: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None, description="the classes to draw from; all by default (classes)"
    )
    prompts: str | None = Field(
        None, description="COCO captions (JSON), shuffled, or a text file, a prompt per line (text)"
    )
    encoder: TextEncoder = TextEncoder()
    checkpoint: str | None = Field(
        None,
        min_length=1,
        description="a file or folder of the embedding or encoder, if the model's has none",
    )
    seed: int = Field(1234, description="of the order of labels and captions")

    @model_validator(mode="after")
    def _labels_exist(self) -> Conditioning:
        if outside := [label for label in self.only or () if label >= self.classes]:
            raise ValueError(
                f"there is no class {outside[0]}; classes are counted from 0 to {self.classes - 1}"
            )
        return self
