"""What networks are: their sizes, and what they are told; the part of the schema that describes a checkpoint."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Count = Annotated[int, Field(ge=1, le=10**9)]


class Strict(BaseModel):
    """Refuses unknown keys, later changes, and values of another type: "5" and true are no numbers, .inf and .nan none to work with."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _lists_are_kept_as_tuples(cls, settings: Any) -> Any:
        if not isinstance(settings, dict):
            return settings
        return {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}


class UNetArchitecture(Strict):
    """Sizes of a U-Net, and the original code whose arithmetic it has.

    `ddim`: ermongroup/ddim, single-head attention. `ldm`: CompVis/latent-diffusion without condition. `transformer`: the same
    code with SpatialTransformers of depth 1 over a context (class-conditional LDM, Stable Diffusion).
    """

    family: Literal["ddim", "ldm", "transformer"] = "ddim"
    image_size: Count = Field(32, description="height and width of what the network sees: pixels, or latents of an autoencoder")
    in_channels: Count = 3
    channels: Count = Field(128, description="channels of the first level")
    multipliers: tuple[Count, ...] = Field((1, 2, 2, 2), description="channels of each level, as multiples of the first")
    blocks_per_level: Count = Field(2, description="res-blocks per level on the way down; one more on the way up")
    attention_resolutions: tuple[Count, ...] = Field((16,), description="heights of the feature maps with attention beside the middle")
    norm_groups: Count = Field(32, description="groups of every GroupNorm")
    heads: Count | None = Field(None, description="heads of every attention (ldm, transformer)")
    head_channels: Count | None = Field(None, description="channels of a head, instead of their number (ldm)")
    scale_shift: bool = Field(False, description="the time embedding scales and shifts (FiLM) instead of being added (ldm)")
    resample: Literal["convolution", "res_block"] = Field("convolution", description="what halves and doubles resolutions (ldm)")
    context_channels: Count | None = Field(None, description="channels of a context token (transformer)")

    @model_validator(mode="after")
    def _settings_belong_to_the_family(self) -> UNetArchitecture:
        given = {name for name in ("heads", "head_channels", "context_channels") if getattr(self, name) is not None}
        given |= {name for name, default in (("scale_shift", False), ("resample", "convolution")) if getattr(self, name) != default}
        known = {"ddim": set(), "ldm": {"heads", "head_channels", "scale_shift", "resample"}, "transformer": {"heads", "context_channels"}}
        if foreign := sorted(given - known[self.family]):
            raise ValueError(f"the family '{self.family}' has no setting '{foreign[0]}'; remove it, or choose another family")
        if self.family == "ldm" and (self.heads is None) == (self.head_channels is None):
            raise ValueError("the family 'ldm' needs either heads or head_channels")
        if self.family == "transformer" and not (self.heads and self.context_channels):
            raise ValueError("the family 'transformer' needs heads and context_channels")
        return self


class Autoencoder(Strict):
    """From latents to images (CompVis/latent-diffusion); never quantized.

    `vq` snaps latents to a codebook before it decodes them, `kl` does not.
    """

    kind: Literal["vq", "kl"]
    latent_channels: Count = 3
    image_channels: Count = 3
    channels: Count = Field(128, description="channels of the first level")
    multipliers: tuple[Count, ...] = Field((1, 2, 4), description="channels of each level; every level but the last halves the resolution")
    blocks_per_level: Count = 2
    codes: Count = Field(8192, description="entries of the codebook (vq)")
    norm_groups: Count = 32
    checkpoint: str | None = Field(
        None, min_length=1, description="a file or folder of a VAE, instead of the one in the model's checkpoint"
    )
    scale: Annotated[float, Field(gt=0)] | None = Field(
        1.0, description="the network sees latents times this number; null reads it from the checkpoint's `scale_factor`"
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


class Conditioning(Strict):
    """What the network is told about each image, by the image's index."""

    kind: Literal["classes", "text"]
    guidance: float = Field(1.0, ge=1, description="classifier-free guidance scale; 1 leaves out the unconditional evaluation")
    classes: Count = Field(1000, description="number of classes; one more embedding stands for no condition (classes)")
    images_per_class: Count = Field(50, description="of each class so many among the images, in shuffled order (classes)")
    only: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(None, description="the classes to draw from; all by default (classes)")
    prompts: str | None = Field(None, description="COCO captions (JSON), shuffled, or a text file, a prompt per line (text)")
    encoder: TextEncoder = TextEncoder()
    checkpoint: str | None = Field(None, min_length=1, description="a file or folder of the embedding or encoder, if the model's has none")
    seed: int = Field(1234, description="of the order of labels and captions")

    @model_validator(mode="after")
    def _labels_exist(self) -> Conditioning:
        if outside := [label for label in self.only or () if label >= self.classes]:
            raise ValueError(f"there is no class {outside[0]}; classes are counted from 0 to {self.classes - 1}")
        return self
