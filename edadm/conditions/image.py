"""A prompt beside an image that the network is given behind the noise: to paint in it, or to change it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor, nn

from edadm.artifacts import reading
from edadm.conditions.text import TextCondition, build, prompts_of
from edadm.config.files.sources import prompts_file
from edadm.config.inputs.folders import list_images
from edadm.config.inputs.prompts import prompts_in
from edadm.errors import EdadmError
from edadm.networks.settings.parts import Conditioning

_WHOLE = 0.25  # share of images of which nothing is left, as Stable Diffusion's inpainting was trained
_SHORTEST, _LONGEST = 0.25, 0.75  # sides of the other masks, as shares of the image's


class TextAndImage(nn.Module):
    """A text encoder and the encoder of the latents' autoencoder.

    Args:
        text: the text encoder.
        autoencoder: whose encoder is kept.
        side: of the network's latents.
    """

    def __init__(self, text: nn.Module, autoencoder: nn.Module, side: int):
        super().__init__()
        self.text = text
        self.image = nn.Module()
        parts: Any = autoencoder
        self.image.encoder, self.image.quant_conv = parts.encoder, parts.quant_conv
        self.image.register_buffer("scale_factor", torch.ones(()))
        self.side, self.factor = side, 2 ** (len(parts.config["block_out_channels"]) - 1)

    def latents(self, images: Float[Tensor, "n 3 i j"]) -> Float[Tensor, "n c h w"]:
        """The means of the images' latents, without the scale that the network's own have."""
        image: Any = self.image
        moments: Tensor = image.quant_conv(image.encoder(images))
        return moments.chunk(2, dim=1)[0]

    @property
    def scale(self) -> Tensor:
        """By what the network's latents are larger than the autoencoder's."""
        image: Any = self.image
        found: Tensor = image.scale_factor
        return found


class ImageCondition:
    """Image i has the i-th prompt and the i-th image, square from its middle; see `masked` and `changed`.

    Args:
        network: with weights.
        text: the prompts.
        files: an image for each prompt.
        given: what the network is given of images with pixels in [-1, 1], by their indices.
        drops_image: whether guidance evaluates the network without an image, too.
        image_guidance: its scale towards the image; without effect where images are not dropped.
    """

    def __init__(
        self,
        network: TextAndImage,
        text: TextCondition,
        files: Sequence[Path],
        given: Callable[[Float[Tensor, "n 3 i j"], Sequence[int]], Tensor],
        image_guidance: float | None = None,
    ):
        self._network, self._text, self._files, self._given = network, text, files, given
        self.image_guidance = image_guidance

    @torch.no_grad()
    def rows(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """What the network is told of each image: `context` and `image`."""
        side = self._network.side * self._network.factor
        pixels = torch.stack([pixels_of(self._files[index], side) for index in indices])
        device = next(self._network.parameters()).device
        return self._text.rows(indices) | {"image": self._given(pixels.to(device), indices)}

    @torch.no_grad()
    def unconditional(self) -> dict[str, Tensor]:
        """The context of the empty prompt; where the image is dropped as well, zeros in its place."""
        nothing = self._text.unconditional()
        if self.image_guidance is None:
            return nothing
        shape = (1, self._channels, self._network.side, self._network.side)
        return nothing | {"image": nothing["context"].new_zeros(shape)}

    @property
    def _channels(self) -> int:
        quantized: Any = self._network.image.quant_conv
        return int(quantized.out_channels) // 2


def pixels_of(file: Path, side: int) -> Float[Tensor, "3 side side"]:
    """The largest square around an image's middle, resized (bicubic), in [-1, 1].

    Raises:
        DamagedError: it cannot be read.
    """
    with reading(file, "replace or remove it", what="an image"), Image.open(file) as image:
        square = ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1).float() / 127.5 - 1


def mask_of(index: int, side: int, seed: int) -> Float[Tensor, "1 side side"]:
    """What is painted of image `index`: 1 there, 0 elsewhere; a function of index and seed alone.

    A quarter of all images is painted anew as a whole; of the others a rectangle whose sides are uniform
    between a quarter and three quarters of the image's, at a uniform place.
    """
    drawn = hashlib.sha256(f"{seed}/mask/{index}".encode()).digest()
    whole, *shares = (int.from_bytes(drawn[place : place + 4], "big") / 2**32 for place in range(0, 20, 4))
    mask = torch.zeros(1, side, side)
    if whole < _WHOLE:
        return mask + 1
    height, width = (
        max(1, round(side * (_SHORTEST + share * (_LONGEST - _SHORTEST)))) for share in shares[:2]
    )
    top, left = (
        int(share * (side - size + 1)) for share, size in zip(shares[2:], (height, width), strict=True)
    )
    mask[:, top : top + height, left : left + width] = 1
    return mask


def masked(
    network: TextAndImage, seed: int, images: Float[Tensor, "n 3 i j"], indices: Sequence[int]
) -> Float[Tensor, "n c h w"]:
    """The mask, and the scaled latents of the image with zeros where it is 1, as diffusers' pipeline has it.

    The latents are the means of what the autoencoder says; the pipeline draws from it.
    """
    masks = torch.stack([mask_of(index, network.side, seed) for index in indices]).to(images)
    hidden = masks.repeat_interleave(network.factor, 2).repeat_interleave(network.factor, 3)
    latents = network.latents(images * (1 - hidden)) * network.scale
    return torch.cat([masks, latents], dim=1)


def build_both(settings: Conditioning, context_channels: int, autoencoder: Any, side: int) -> TextAndImage:
    """Text encoder and image encoder, randomly initialised."""
    return TextAndImage(build(settings, context_channels), autoencoder, side)


def make(network: TextAndImage, settings: Conditioning, images: int) -> ImageCondition:
    """The prompts and images 0 .. images - 1.

    Raises:
        EdadmError: there are fewer, or captions are drawn from an order that images do not have.
    """
    prompts, files = prompts_of(settings, images), images_of(settings, images)
    text = TextCondition(network.text, prompts, settings.encoder)
    if settings.kind == "inpainting":
        return ImageCondition(
            network, text, files, lambda pixels, at: masked(network, settings.seed, pixels, at)
        )
    return ImageCondition(
        network, text, files, lambda pixels, _: network.latents(pixels), settings.image_guidance
    )


def images_of(settings: Conditioning, images: int) -> list[Path]:
    """The files of the images 0 .. images - 1, in order.

    Raises:
        EdadmError: there are fewer, or captions are drawn from an order that images do not have.
    """
    assert settings.image_folder is not None and settings.prompts is not None
    if prompts_in(prompts_file(settings.prompts)).annotations:
        raise EdadmError(
            f"{settings.prompts} holds captions in no order of images; give a text file with a prompt for "
            f"each image of {settings.image_folder}"
        )
    files = list_images(Path(settings.image_folder).expanduser()).files
    if len(files) < images:
        raise EdadmError(
            f"{images} images exceed the {len(files)} in {settings.image_folder}; add images or make fewer"
        )
    return files[:images]
