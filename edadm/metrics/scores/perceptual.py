"""Differences of images as VGG16 sees them, with weights from files: LPIPS and DISTS.

Both are computed from the papers' formulas; `docs/metrics.md` says how near they come to others' programs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torchvision
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.errors import EdadmError
from edadm.networks.weights import CheckpointError, read_state

Measure = Callable[[Tensor, Tensor], Float[Tensor, " n"]]
STAGES = ((0, 4), (4, 9), (9, 16), (16, 23), (23, 30))  # of VGG16, each up to the last ReLU before it shrinks
LEAST = 16  # pixels, of which VGG16's last stage has one
WIDTHS = (64, 128, 256, 512, 512)
_TINY, _SMALL = 1e-10, 1e-6  # of norms; c1 and c2 of DISTS
_LPIPS = ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450))  # of values in [-1, 1]
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # of values in [0, 1]
_HANN = (0.25, 0.5, 0.25)  # DISTS' window of three


class L2Pool(nn.Module):
    """Root of the windowed mean of squares, half the size, in the place of VGG16's maxima."""

    def forward(self, maps: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c _ _"]:
        window = torch.outer(torch.tensor(_HANN), torch.tensor(_HANN)).to(maps)
        kernel = window.expand(maps.shape[1], 1, 3, 3)
        return (F.conv2d(maps**2, kernel, stride=2, padding=1, groups=maps.shape[1]) + 1e-12).sqrt()


def perceptual(score: str, weights: Mapping[str, Path], device: torch.device | str = "cpu") -> Measure:
    """A measure of images beside others, lower is nearer.

    Args:
        score: `lpips` or `dists`.
        weights: files by `vgg16` (torchvision's), `lpips` (the authors' v0.1 for VGG) and `dists`.
        device: where VGG16 computes.

    Raises:
        CheckpointError: a file cannot be read, or holds something else.
    """
    with torch.device("meta"):  # numbers come from the file
        layers = torchvision.models.vgg16(weights=None).features
    state = {
        name.removeprefix("features."): tensor
        for name, tensor in read_state(weights["vgg16"]).items()
        if name.startswith("features.")
    }
    try:
        layers.load_state_dict(state, assign=True)
    except RuntimeError:
        raise CheckpointError(
            f"{weights['vgg16']} is not torchvision's VGG16; fetch it with `edadm download vgg16`"
        ) from None
    if score == "dists":
        layers = nn.Sequential(*(L2Pool() if isinstance(layer, nn.MaxPool2d) else layer for layer in layers))
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False
    stages = [layers[begin:end].to(device).eval().requires_grad_(False) for begin, end in STAGES]
    of_score = {"lpips": _lpips, "dists": _dists}[score]
    measure = of_score(stages, read_state(weights[score]), weights[score], torch.device(device))

    def checked(images: UInt8[Tensor, "n 3 h w"], references: UInt8[Tensor, "n 3 h w"]) -> Tensor:
        if min(images.shape[2:]) < LEAST:
            raise EdadmError(f"{score} needs images of {LEAST} pixels or more; take it out of `scores`")
        return measure(images, references)

    return checked


def _lpips(stages: list[nn.Module], state: Mapping[str, Tensor], file: Path, device: torch.device) -> Measure:
    """LPIPS with VGG, version 0.1 (arXiv 1801.03924, eq. 1)."""
    found = [state.get(f"lin{stage}.model.1.weight") for stage in range(len(WIDTHS))]
    if any(of is None or of.numel() != width for of, width in zip(found, WIDTHS, strict=True)):
        raise CheckpointError(
            f"{file} holds no weights of LPIPS for VGG; fetch them with `edadm download lpips`"
        )
    heads = [of.flatten()[:, None, None].to(device) for of in found if of is not None]

    def measure(images: UInt8[Tensor, "n 3 h w"], references: UInt8[Tensor, "n 3 h w"]) -> Tensor:
        both = [_normalised(of.to(device).float() / 127.5 - 1, _LPIPS) for of in (images, references)]
        apart = torch.zeros(len(images), device=device)
        for stage, head in zip(stages, heads, strict=True):
            both = [stage(of) for of in both]
            one, other = (of / (of.norm(dim=1, keepdim=True) + _TINY) for of in both)
            apart += (head * (one - other) ** 2).sum(1).mean(dim=(1, 2))
        return apart.cpu()

    return torch.no_grad()(measure)


def _dists(stages: list[nn.Module], state: Mapping[str, Tensor], file: Path, device: torch.device) -> Measure:
    """DISTS (arXiv 2004.07728): texture by means, structure by covariances, of pixels and maps."""
    total = 3 + sum(WIDTHS)
    alpha, beta = state.get("alpha"), state.get("beta")
    if alpha is None or beta is None or {alpha.numel(), beta.numel()} != {total}:
        raise CheckpointError(f"{file} holds no weights of DISTS; fetch them with `edadm download dists`")
    both = torch.stack([alpha.flatten(), beta.flatten()]).to(device)
    shares = (both / both.sum()).split([3, *WIDTHS], dim=1)

    def measure(images: UInt8[Tensor, "n 3 h w"], references: UInt8[Tensor, "n 3 h w"]) -> Tensor:
        pixels = [of.to(device).float() / 255 for of in (images, references)]
        alike = _alike(pixels[0], pixels[1], shares[0])
        maps = [_normalised(of, _IMAGENET) for of in pixels]
        for stage, share in zip(stages, shares[1:], strict=True):
            maps = [stage(of) for of in maps]
            alike += _alike(maps[0], maps[1], share)
        return (1 - alike).cpu()

    return torch.no_grad()(measure)


def _alike(
    one: Float[Tensor, "n c h w"], other: Float[Tensor, "n c h w"], share: Float[Tensor, "2 c"]
) -> Float[Tensor, " n"]:
    means = [of.mean(dim=(2, 3), keepdim=True) for of in (one, other)]
    variances = [((of - mean) ** 2).mean(dim=(2, 3)) for of, mean in zip((one, other), means, strict=True)]
    mean, beside = (of[:, :, 0, 0] for of in means)
    together = (one * other).mean(dim=(2, 3)) - mean * beside
    texture = (2 * mean * beside + _SMALL) / (mean**2 + beside**2 + _SMALL)
    structure = (2 * together + _SMALL) / (variances[0] + variances[1] + _SMALL)
    return (share[0] * texture + share[1] * structure).sum(1)


def _normalised(
    values: Float[Tensor, "n 3 h w"], colours: tuple[tuple[float, ...], tuple[float, ...]]
) -> Float[Tensor, "n 3 h w"]:
    mean, deviation = (torch.tensor(of, device=values.device)[:, None, None] for of in colours)
    return (values - mean) / deviation
