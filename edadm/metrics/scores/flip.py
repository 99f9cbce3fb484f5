"""How different two images look that a viewer flips between: LDR-FLIP.

Andersson, Nilsson, Akenine-Moller, Oskarsson, Astrom and Fairchild, "FLIP: A Difference Evaluator for
Alternating Images", Proceedings of the ACM on Computer Graphics and Interactive Techniques 3(2), 2020.
Sections below are those of the paper.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

PIXELS_PER_DEGREE = 0.7 * 3840 / 0.7 * math.pi / 180  # a 4K display of 0.7 m, seen from 0.7 m
_SENSITIVITY = (  # amplitude and width of two Gaussians for luminance, red-green and blue-yellow (4.1.1)
    ((1.0, 0.0047), (0.0, 1e-5)),
    ((1.0, 0.0053), (0.0, 1e-5)),
    ((34.1, 0.04), (13.5, 0.025)),
)
_COLOUR_EXPONENT, _COLOUR_KNEE, _COLOUR_SHARE = 0.7, 0.4, 0.95  # 4.1.3
_FEATURE_WIDTH, _FEATURE_EXPONENT = 0.082, 0.5  # degrees (4.2)
_SMALLEST = 1e-6  # of a root's argument
_XYZ = torch.tensor(  # of linear sRGB
    [
        [10135552 / 24577794, 8788810 / 24577794, 4435075 / 24577794],
        [2613072 / 12288897, 8788810 / 12288897, 887015 / 12288897],
        [1425312 / 73733382, 8788810 / 73733382, 70074185 / 73733382],
    ],
)
_WHITE = _XYZ.sum(1)
_OPPONENT = torch.tensor([[0.0, 116, 0], [500, -500, 0], [0, 200, -200]])  # of XYZ / white

Images = Float[Tensor, "n 3 h w"]


def flip(
    images: UInt8[Tensor, "n 3 h w"],
    references: UInt8[Tensor, "n 3 h w"],
    pixels_per_degree: float = PIXELS_PER_DEGREE,
) -> Float[Tensor, " n"]:
    """The mean FLIP error of each image, from 0, the same, to 1."""
    ours, theirs = _opponent(_linear(images)), _opponent(_linear(references))
    colour = _colour_difference(_seen(ours, pixels_per_degree), _seen(theirs, pixels_per_degree))
    feature = _feature_difference(ours[:, :1], theirs[:, :1], pixels_per_degree)
    return (colour ** (1 - feature)).flatten(1).mean(1)


def _linear(images: UInt8[Tensor, "n 3 h w"]) -> Images:
    values = images.float() / 255
    return torch.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)


def _mixed(images: Images, matrix: Float[Tensor, "3 3"]) -> Images:
    return torch.einsum("ij,njhw->nihw", matrix, images)


def _opponent(linear: Images) -> Images:
    """YyCxCz, in which the eye's sensitivity is known."""
    mixed = _mixed(linear, _OPPONENT @ (_XYZ / _WHITE[:, None]))
    return mixed - torch.tensor([16.0, 0, 0])[:, None, None]


def _seen(opponent: Images, pixels_per_degree: float) -> Images:
    """What a viewer sees at that distance, in a uniform space (4.1.1 and 4.1.2)."""
    widest = max(width for pair in _SENSITIVITY for _, width in pair)
    radius = math.ceil(3 * math.sqrt(widest / (2 * math.pi**2)) * pixels_per_degree)
    degrees = _offsets(radius) / pixels_per_degree
    channels = []
    for channel, pair in enumerate(_SENSITIVITY):
        whole, total = torch.zeros(()), torch.zeros(())
        for height, width in pair:
            weight, bell = height * math.sqrt(math.pi / width), torch.exp(-((math.pi * degrees) ** 2) / width)
            whole = whole + weight * _filtered(opponent[:, channel : channel + 1], bell, bell)
            total = total + weight * bell.sum() ** 2
        channels.append(whole / total)
    filtered = torch.cat(channels, 1)
    shifted = filtered + torch.tensor([16.0, 0, 0])[:, None, None]
    back = torch.linalg.inv(_OPPONENT @ (_XYZ / _WHITE[:, None]))
    return _uniform(_mixed(shifted, back).clamp(0, 1))


def _uniform(linear: Images) -> Images:
    """L*a*b*, with colours that count less where it is dark (Hunt effect)."""
    relative = _mixed(linear, _XYZ / _WHITE[:, None])
    limit = 6 / 29
    roots = torch.where(
        relative > limit**3, relative.clamp(min=0) ** (1 / 3), relative / (3 * limit**2) + 4 / 29
    )
    x, y, z = roots.unbind(1)
    lightness = 116 * y - 16
    return torch.stack([lightness, 0.01 * lightness * 500 * (x - y), 0.01 * lightness * 200 * (y - z)], 1)


def _distance(one: Images, other: Images) -> Float[Tensor, "n 1 h w"]:
    """HyAB: lightness apart from the two colours (4.1.3)."""
    apart = one - other
    return apart[:, :1].abs() + apart[:, 1:].square().sum(1, keepdim=True).sqrt()


def _colour_difference(ours: Images, theirs: Images) -> Float[Tensor, "n 1 h w"]:
    """Differences in [0, 1]; 0.95 of the range for the lower 40 % of what can differ (4.1.3)."""
    green, blue = (_uniform(torch.eye(3)[i].view(1, 3, 1, 1)) for i in (1, 2))
    largest = _distance(green, blue).item() ** _COLOUR_EXPONENT
    apart, knee = _distance(ours, theirs) ** _COLOUR_EXPONENT, _COLOUR_KNEE * largest
    above = _COLOUR_SHARE + (apart - knee) / (largest - knee) * (1 - _COLOUR_SHARE)
    return torch.where(apart < knee, apart * (_COLOUR_SHARE / knee), above).clamp(0, 1)


def _feature_difference(
    ours: Float[Tensor, "n 1 h w"], theirs: Float[Tensor, "n 1 h w"], pixels_per_degree: float
) -> Float[Tensor, "n 1 h w"]:
    """How much edges and points differ, in [0, 1] (4.2)."""
    deviation = 0.5 * _FEATURE_WIDTH * pixels_per_degree
    radius = math.ceil(3 * deviation)
    offsets = _offsets(radius)
    bell = torch.exp(-(offsets**2) / (2 * deviation**2))
    largest = torch.zeros_like(ours)
    for slope in (-offsets * bell, (offsets**2 / deviation**2 - 1) * bell):
        parts = (slope.clamp(min=0), slope.clamp(max=0))
        kernel = parts[0] / parts[0].sum() - parts[1] / parts[1].sum()
        across, found = bell / bell.sum(), []
        for image in ((ours + 16) / 116, (theirs + 16) / 116):
            both = _filtered(image, kernel, across), _filtered(image, across, kernel)
            found.append((both[0] ** 2 + both[1] ** 2).sqrt())
        largest = torch.maximum(largest, (found[0] - found[1]).abs())
    return (largest / math.sqrt(2)).clamp(_SMALLEST, 1) ** _FEATURE_EXPONENT


def _offsets(radius: int) -> Float[Tensor, " k"]:
    return torch.arange(-radius, radius + 1, dtype=torch.float32)


def _filtered(
    images: Float[Tensor, "n 1 h w"], along: Float[Tensor, " k"], down: Float[Tensor, " k"]
) -> Float[Tensor, "n 1 h w"]:
    """Images weighted by the product of two kernels; the border's colour goes on outside."""
    extended = F.pad(images, (len(along) // 2,) * 4, mode="replicate")
    return F.conv2d(F.conv2d(extended, along[None, None, None]), down[None, None, :, None])
