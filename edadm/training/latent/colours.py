"""The colour that stands in the middle of an image, as a word."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

COLOURS = ("black", "white", "grey", "red", "orange", "brown", "yellow", "green", "blue", "purple")
_HUES = {"red": 15, "brown": 45, "yellow": 60, "green": 165, "blue": 260, "purple": 320}  # degrees, exclusive
_COLOURLESS = 0.07  # largest less smallest channel below which a colour is black, grey or white,
_BLACK, _WHITE = 0.35, 0.58  # by its lightness
_DARKEST, _LIGHTEST = 0.25, 0.72  # lightness beyond which any colour is black or white
_SATURATED, _LIGHT = 0.4, 0.4  # saturation and lightness from which on a brown is an orange


def colours_of(images: UInt8[Tensor, "n 3 h w"]) -> Int[Tensor, " n"]:
    """Each image's colour, as an index into `COLOURS`: of the mean of its middle, half as high and wide.

    Lightness, saturation and hue are those of HSL.
    """
    height, width = images.shape[-2:]
    middle = images[:, :, height // 4 : height - height // 4, width // 4 : width - width // 4]
    mean = middle.float().mean((2, 3)) / 255
    high, low = mean.max(1).values, mean.min(1).values
    chroma, lightness = high - low, (high + low) / 2
    saturation = chroma / (1 - (2 * lightness - 1).abs()).clamp(min=1e-6)
    found = torch.full_like(images[:, 0, 0, 0], COLOURS.index("red"), dtype=torch.long)
    hue, begin = _hue(mean), 0
    for name, end in _HUES.items():
        found[(hue >= begin) & (hue < end)] = COLOURS.index(name)
        begin = end
    is_brown = found == COLOURS.index("brown")
    found[is_brown & (saturation >= _SATURATED) & (lightness >= _LIGHT)] = COLOURS.index("orange")
    grey = chroma < _COLOURLESS
    found[grey] = COLOURS.index("grey")
    found[(grey & (lightness < _BLACK)) | (lightness < _DARKEST)] = COLOURS.index("black")
    found[(grey & (lightness > _WHITE)) | (lightness > _LIGHTEST)] = COLOURS.index("white")
    return found


def _hue(mean: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """In degrees, in [0, 360)."""
    red, green, blue = mean.unbind(1)
    high = mean.max(1).values
    chroma = (high - mean.min(1).values).clamp(min=1e-6)
    of_green = torch.where(high == green, (blue - red) / chroma + 2, (red - green) / chroma + 4)
    return 60 * torch.where(high == red, ((green - blue) / chroma) % 6, of_green)
