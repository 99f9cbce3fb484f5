"""Sizes of a network, and the family that it belongs to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edadm.networks.settings.diffusers_unet import DiffusersUNet
from edadm.networks.settings.families import FAMILIES
from edadm.networks.settings.parts import TIME_IDS, sizes_told
from edadm.networks.settings.strict import Count, Strict, of_some

Positive = Annotated[float, Field(gt=0)]


class Architecture(Strict):
    """Sizes of a network, and the original code whose arithmetic it has.

    `ddim`: ermongroup/ddim, single-head attention. `ldm`: CompVis/latent-diffusion without condition.
    `transformer`: the same
    code with SpatialTransformers of depth 1 over a context (class-conditional LDM, Stable Diffusion).
    `diffusers`: whatever the `config.json` of a diffusers U-Net says; `diffusers` holds its settings, and
    those below `in_channels` are not used. `sdxl`: such a U-Net that adds a pooled text and the image's sizes
    to its embedding of time (Stable Diffusion XL). `inpainting` and `instruct_pix2pix`: such a U-Net that is
    given the latents of an image behind the noise, and before them a mask (inpainting). `dit`: no U-Net but
    a transformer of patches that is told a class (DiT), as diffusers computes it. `pixart`: one that is told
    a text by T5's states (PixArt-alpha, PixArt-Sigma). `mmdit`: one of patches and tokens of a text (Stable
    Diffusion 3 and 3.5).
    """

    family: Literal[tuple(FAMILIES)] = "ddim"
    image_size: Count = Field(
        32, description="height and width of what the network sees: pixels, or latents of an autoencoder"
    )
    in_channels: Count = 3
    channels: Count = Field(
        128, description="channels of the first level, or of every patch (dit, pixart, mmdit)"
    )
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
    heads: Count | None = Field(
        None, description="heads of every attention (ldm, transformer, dit, pixart, mmdit)"
    )
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
        None,
        description="channels of a context token (transformer, pixart, mmdit, diffusers' "
        "UNet2DConditionModel)",
    )
    diffusers: DiffusersUNet | None = of_some(
        "settings of the U-Net as its config.json names them (diffusers)"
    )
    added_channels: Count | None = of_some(
        "numbers that are added to the embedding of time: a pooled text and six sizes (sdxl)"
    )
    size_channels: Count | None = of_some("numbers among them for each size (sdxl)")
    blocks: Count | None = of_some("blocks, one after the other (dit, pixart, mmdit)")
    patch: Count | None = of_some("height and width of a patch (dit, pixart, mmdit)")
    classes: Count | None = of_some("classes that the network embeds; one more stands for none (dit)")
    out_channels: Count | None = of_some(
        "channels that the network predicts, where a variance, which samplers here leave out, stands behind "
        "those of the noise (dit, pixart)"
    )
    position_scale: Positive | None = of_some(
        "by what places of patches are divided before they are embedded; 1 by default (pixart)"
    )
    size_told: bool | None = of_some(
        "whether the height and width of the image are embedded beside the timestep (pixart)"
    )

    text_channels: Count | None = of_some(
        "channels of a pooled text that is embedded beside the timestep (mmdit)"
    )
    places: Count | None = of_some(
        "patches along each side of the largest image; smaller ones have the places of its middle (mmdit)"
    )
    dual_blocks: tuple[Annotated[int, Field(ge=0)], ...] | None = of_some(
        "blocks, counted from 0, with a second attention of patches to patches (mmdit)"
    )
    qk_norm: Literal["rms_norm"] | None = of_some(
        "what normalises queries and keys, each head of them (mmdit)"
    )

    @model_validator(mode="after")
    def _settings_belong_to_the_family(self) -> Architecture:
        entry = FAMILIES[self.family]
        known = {"family", "image_size", "in_channels", *entry.settings}
        fields = type(self).model_fields.items()
        given = sorted(name for name, field in fields if getattr(self, name) != field.default)
        if foreign := [name for name in given if name not in known]:
            raise ValueError(
                f"the family '{self.family}' has no setting '{foreign[0]}'; remove it, or choose another "
                "family"
            )
        entry.check(dict(self))
        return self

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of each level, the finest first."""
        if self.diffusers is not None:
            return self.diffusers.block_out_channels
        return tuple(self.channels * multiplier for multiplier in self.multipliers)

    @property
    def level_blocks(self) -> int:
        """Res-blocks of every level on the way down; of levels that differ, the first one's."""
        blocks = self.diffusers.layers_per_block if self.diffusers else self.blocks_per_level
        return blocks if isinstance(blocks, int) else blocks[0]

    @property
    def pooled_channels(self) -> int | None:
        """Channels of a pooled text that is added to the embedding of time; None where none is."""
        if self.added_channels is None or self.size_channels is None:
            return self.text_channels
        return self.added_channels - (TIME_IDS - self.is_refiner) * self.size_channels

    @property
    def is_refiner(self) -> bool:
        """Whether the network is told a score in place of the wanted size (SDXL's refiner)."""
        if self.added_channels is None or self.size_channels is None:
            return False
        return sizes_told(self.added_channels, self.size_channels, self.context_channels) != TIME_IDS

    @property
    def image_channels(self) -> int:
        """Channels of an image that the network is given behind those of the noise."""
        return FAMILIES[self.family].image(self.in_channels)

    @property
    def has_context(self) -> bool:
        """Whether the network attends to a condition."""
        return self.context_channels is not None

    @property
    def is_told(self) -> bool:
        """Whether the network is told a condition, to attend to or to embed by itself."""
        return self.has_context or self.classes is not None
