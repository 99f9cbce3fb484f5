"""Sizes of a U-Net, and the family that it belongs to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, model_serializer, model_validator

from edadm.networks.settings.diffusers_unet import DiffusersUNet
from edadm.networks.settings.strict import Count, Strict

SIZED = ("ddim", "ldm", "transformer")  # families that are described by sizes


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
