"""Settings of what stands beside a network: the autoencoder of its latents, and what it is told."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edadm.networks.settings.strict import Count, Strict, of_some

TIME_IDS = 6  # numbers that SDXL is told of an image's size and crop
REFINED = 4  # and its refiner, beside a score of the image's looks
SIZE = 2  # and PixArt of its size alone, in some variants
_Pixels = Annotated[int, Field(ge=0, le=2**31)]
_Sizes = Annotated[tuple[_Pixels, ...], Field(min_length=SIZE, max_length=TIME_IDS)]
_Word = Annotated[str, Field(pattern="^[a-z]{2,}$")]
_OF_TWO = ("second_encoder", "pooled_channels", "time_ids")  # settings of two text encoders
_OF_KIND = {
    "sd3": ("second_encoder", "pooled_channels", "empty_tokens"),
    "sdxl": _OF_TWO,
    "sdxl_refiner": (*_OF_TWO, "scores", "image_folder"),
    "inpainting": ("image_folder",),
    "instruct_pix2pix": ("image_folder", "image_guidance"),
    "t5": ("t5", "time_ids"),
}
_MAY_LACK = dict.fromkeys(_OF_KIND, ("image_folder",)) | {"t5": ("time_ids",)}
_SIZES = {"sdxl": TIME_IDS, "sdxl_refiner": REFINED, "t5": SIZE}
_OWN = tuple(dict.fromkeys(name for names in _OF_KIND.values() for name in names))


def sizes_told(added: int, each: int, context: int | None) -> int:
    """How many sizes SDXL or its refiner is told; the refiner's pooled text is as wide as its context.

    Args:
        added: numbers that are added to the embedding of time.
        each: of them for each size, and for the refiner's score.
        context: channels of a token of the context.
    """
    return REFINED if added - (REFINED + 1) * each == context else TIME_IDS


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

    shift: float = Field(
        0.0,
        ge=-1e6,
        le=1e6,
        description="what is taken off latents before they are scaled",
        exclude_if=lambda value: value == 0,
    )
    quant_conv: bool = Field(
        True,
        description="whether a convolution stands behind the encoder and before the decoder",
        exclude_if=lambda value: value,
    )

    @property
    def factor(self) -> int:
        """Image height by latent height."""
        return 2 ** (len(self.multipliers) - 1)


class TextEncoder(Strict):
    """Sizes of a CLIP text encoder; the defaults are ViT-L/14's.

    Its vocabulary is CLIP's (49,408 tokens), unless it has words of its own.
    """

    channels: Count = 768
    hidden_channels: Count = 3072
    layers: Count = 12
    heads: Count = 12
    tokens: Count = Field(77, description="length of every prompt, padded")
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    padding: Literal["end_of_text", "zero"] = Field(
        "end_of_text", description="what pads a prompt; SD 2.x pads with zeros"
    )
    words: Annotated[tuple[_Word, ...], Field(min_length=1)] | None = of_some(
        "of a vocabulary of its own, each one token; other text is spelled in bytes and known parts of words"
    )


class T5Encoder(Strict):
    """Sizes of T5's text encoder; the defaults are those of version 1.1, XXL."""

    channels: Count = 4096
    hidden_channels: Count = 10240
    layers: Count = 24
    heads: Count = 64
    head_channels: Count = 64
    vocabulary: Count = 32128
    buckets: Count = Field(32, description="distances between tokens that attention tells apart")
    feed_forward: Literal["gated-gelu", "relu"] = "gated-gelu"
    tokens: Count = Field(
        120, description="length of every prompt, padded: 120 for PixArt-alpha, 300 for PixArt-Sigma"
    )


class Conditioning(Strict):
    """What the network is told about each image, by the image's index."""

    kind: Literal[
        "classes", "text", "sd3", "sdxl", "sdxl_refiner", "inpainting", "instruct_pix2pix", "t5"
    ] = Field(
        description="a class, a prompt, a prompt for two text encoders (sd3) and the sizes of the image "
        "(sdxl), a prompt, sizes and a score (sdxl_refiner), or a prompt beside an image, of which a mask "
        "hides a part (inpainting), or which is to be changed; or a prompt for T5, padding masked (t5)"
    )
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
        None,
        description="COCO captions (JSON), shuffled, or a text file, a prompt per line; `bundled:NAME` means "
        "prompts inside the package (text, sd3, sdxl, t5)",
    )
    encoder: TextEncoder = TextEncoder()
    t5: T5Encoder | None = of_some("the text encoder, where it is T5's; its tokenizer lies beside it (t5)")
    second_encoder: TextEncoder | None = of_some(
        "the text encoder whose projected text the time embedding adds (sd3, sdxl); the only one "
        "(sdxl_refiner)"
    )
    pooled_channels: Count | None = of_some(
        "channels of that projection (sdxl, sdxl_refiner), or of both encoders' (sd3)"
    )
    empty_tokens: Count | None = of_some(
        "tokens of zeros behind the prompt's, in place of a third text encoder's (sd3)"
    )
    time_ids: _Sizes | None = of_some(
        "sizes that the network is told, in pixels: original height and width, top and left of the crop, "
        "wanted height and width (sdxl; sdxl_refiner without the last two); or height and width alone (t5, "
        "where the network is told them)"
    )
    scores: tuple[float, float] | None = of_some(
        "of an image's looks, that the network is told: with the prompt, and without (sdxl_refiner)"
    )
    image_folder: str | None = of_some(
        "folder of the images that the network is given, or begins from, one for each prompt in the order of "
        "their paths (inpainting, instruct_pix2pix, sdxl_refiner)"
    )
    image_guidance: Annotated[float, Field(ge=1)] | None = of_some(
        "guidance scale towards the image; with `guidance` the network is evaluated a third time, without an "
        "image (instruct_pix2pix)"
    )
    checkpoint: str | None = Field(
        None,
        min_length=1,
        description="a file or folder of the embedding or encoder, if the model's has none",
    )
    seed: int = Field(1234, description="of the order of labels and captions")

    @property
    def has_prompts(self) -> bool:
        """Whether each image has a prompt, and not a class."""
        return self.kind != "classes"

    def shapes(self, context_channels: int) -> dict[str, tuple[int, ...]]:
        """The shape of everything that a network is told of one image, by name of the input.

        Args:
            context_channels: of one token of its context.
        """
        shapes: dict[str, tuple[int, ...]] = {}
        if self.t5 is not None:
            size = {} if self.time_ids is None else {"time_ids": (len(self.time_ids),)}
            return {"context": (self.t5.tokens, context_channels), "context_mask": (self.t5.tokens,)} | size
        tokens = (self._only_second or self.encoder).tokens
        tokens += self.empty_tokens or 0
        shapes["context"] = (tokens if self.has_prompts else 1, context_channels)
        if self.pooled_channels is not None:
            shapes["pooled"] = (self.pooled_channels,)
        if self.time_ids is not None:
            shapes["time_ids"] = (len(self.time_ids),)
        return shapes | ({"score": (1,)} if self.scores is not None else {})

    @property
    def _only_second(self) -> TextEncoder | None:
        """The text encoder of a network that is told nothing of the first one's."""
        return self.second_encoder if self.kind == "sdxl_refiner" else None

    @property
    def has_image(self) -> bool:
        """Whether the network is given an image behind the noise."""
        return self.kind in ("inpainting", "instruct_pix2pix")

    @property
    def encodes_images(self) -> bool:
        """Whether there are images whose latents the network is given, or begins from."""
        return self.has_image or self.kind == "sdxl_refiner"

    @property
    def drops_image(self) -> bool:
        """Whether guidance evaluates the network a third time, without an image and without a text."""
        return self.kind == "instruct_pix2pix" and self.guidance != 1

    @property
    def text_channels(self) -> int:
        """Channels of a token's hidden states, those of two encoders beside each other."""
        if self.t5 is not None:
            return self.t5.channels
        if self._only_second is not None:
            return self._only_second.channels
        return self.encoder.channels + (self.second_encoder.channels if self.second_encoder else 0)

    @model_validator(mode="after")
    def _settings_belong_to_the_kind(self) -> Conditioning:
        wanted = _OF_KIND.get(self.kind, ())
        given = [name for name in _OWN if getattr(self, name) is not None]
        if foreign := [name for name in given if name not in wanted]:
            kinds = [kind for kind, names in _OF_KIND.items() if foreign[0] in names]
            raise ValueError(
                f"the kind '{self.kind}' has no setting '{foreign[0]}'; remove it, or set kind: "
                f"{' or '.join(kinds)}"
            )
        needed = [name for name in wanted if name not in given and name not in _MAY_LACK.get(self.kind, ())]
        if needed:
            raise ValueError(f"the kind '{self.kind}' needs {needed[0]}; `edadm describe FOLDER` prints it")
        if self.time_ids and len(self.time_ids) != (wanted_ids := _SIZES[self.kind]):
            raise ValueError(
                f"the kind '{self.kind}' is told {wanted_ids} sizes, not {len(self.time_ids)}; mend time_ids"
            )
        second = self.second_encoder if self.second_encoder and not self._only_second else self.encoder
        if second.tokens != self.encoder.tokens:
            raise ValueError(
                f"the text encoders take prompts of {self.encoder.tokens} and {second.tokens} tokens; make "
                "them equal"
            )
        return self

    @model_validator(mode="after")
    def _labels_exist(self) -> Conditioning:
        if outside := [label for label in self.only or () if label >= self.classes]:
            raise ValueError(
                f"there is no class {outside[0]}; classes are counted from 0 to {self.classes - 1}"
            )
        return self
