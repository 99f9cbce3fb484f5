"""LPIPS and DISTS with random weights, beside their formulas written out another way."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

from edadm.config.files.scoring import Scoring
from edadm.config.files.sources import file_sha256
from edadm.config.schema import Evaluation
from edadm.errors import EdadmError
from edadm.metrics.evaluate import evaluate
from edadm.metrics.scores.perceptual import WIDTHS, perceptual
from tests.metrics.drawn import random_images

ENDS = (3, 8, 15, 22, 29)  # the last ReLU of each stage
ONE, OTHER = random_images(2)[:, :, :, :24], random_images(2, 1)[:, :, :, :24]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files in the layouts that torchvision and the authors publish."""
    folder = tmp_path_factory.mktemp("perceptual")
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = torchvision.models.vgg16(weights=None).features.state_dict()
    vgg = {
        f"features.{name}": torch.randn(shape.shape, generator=generator) * (2 / shape[0].numel()) ** 0.5
        for name, shape in shapes.items()
    }
    lins = {
        f"lin{stage}.model.1.weight": torch.rand((1, width, 1, 1), generator=generator)
        for stage, width in enumerate(WIDTHS)
    }
    dists = {name: torch.rand((1, 3 + sum(WIDTHS), 1, 1), generator=generator) for name in ("alpha", "beta")}
    made = {"vgg16": vgg, "lpips": lins, "dists": dists}
    for name, state in made.items():
        torch.save(state, folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in made}


def maps_of(images: Tensor, vgg: dict[str, Tensor], soft: bool) -> list[Tensor]:
    """What VGG16's stages make of normalised images, layer by layer."""
    found, layer = [], 0
    window = torch.tensor([0.25, 0.5, 0.25])
    for kind in torchvision.models.vgg.cfgs["D"]:
        if kind == "M" and soft:
            squares = F.conv2d(
                images.flatten(0, 1)[:, None] ** 2,
                torch.outer(window, window)[None, None],
                stride=2,
                padding=1,
            )
            images = (squares.view(*images.shape[:2], *squares.shape[2:]) + 1e-12).sqrt()
        elif kind == "M":
            images = F.max_pool2d(images, 2)
        else:
            parts = (vgg[f"features.{layer}.{part}"] for part in ("weight", "bias"))
            images = F.conv2d(images, *parts, padding=1).relu()
        layer += 1 if kind == "M" else 2
        found += [images] if layer - 1 in ENDS else []
        if len(found) == len(ENDS):
            break
    return found


def test_lpips_is_its_formula(weights: dict[str, Path]) -> None:
    vgg, lins = (torch.load(weights[name], weights_only=True) for name in ("vgg16", "lpips"))
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    pair = [
        maps_of((of.float() / 127.5 - 1 - shift[:, None, None]) / scale[:, None, None], vgg, soft=False)
        for of in (ONE, OTHER)
    ]
    expected = torch.zeros(2)
    for stage, (one, other) in enumerate(zip(*pair, strict=True)):
        apart = (F.normalize(one, dim=1) - F.normalize(other, dim=1)).square()
        expected += F.conv2d(apart, lins[f"lin{stage}.model.1.weight"]).mean(dim=(1, 2, 3))
    torch.testing.assert_close(perceptual("lpips", weights)(ONE, OTHER), expected, rtol=1e-4, atol=1e-6)
    assert perceptual("lpips", weights)(ONE, ONE).tolist() == [0, 0]


def test_dists_is_its_formula(weights: dict[str, Path]) -> None:
    vgg, shares = (torch.load(weights[name], weights_only=True) for name in ("vgg16", "dists"))
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pair = [
        [of / 255, *maps_of((of / 255 - mean[:, None, None]) / deviation[:, None, None], vgg, soft=True)]
        for of in (ONE.float(), OTHER.float())
    ]
    texture, structure = [], []
    for one, other in zip(*pair, strict=True):
        x, y = one.flatten(2), other.flatten(2)
        a, b = x.mean(2), y.mean(2)
        texture.append((2 * a * b + 1e-6) / (a**2 + b**2 + 1e-6))
        both = ((x - a[..., None]) * (y - b[..., None])).mean(2)
        spread = x.var(2, unbiased=False) + y.var(2, unbiased=False)
        structure.append((2 * both + 1e-6) / (spread + 1e-6))
    total = shares["alpha"].sum() + shares["beta"].sum()
    alike = (
        torch.cat(texture, 1) @ shares["alpha"].flatten() + torch.cat(structure, 1) @ shares["beta"].flatten()
    )
    found = perceptual("dists", weights)(ONE, OTHER)
    torch.testing.assert_close(found, 1 - alike / total, rtol=1e-3, atol=1e-5)
    assert perceptual("dists", weights)(ONE, ONE).abs().max() < 1e-5


def test_evaluate_gives_both_with_digests_of_their_weights(weights: dict[str, Path]) -> None:
    settings = Evaluation(scores=("lpips", "dists"))
    files = Scoring("cifar10_classifier", None, None, None, perceptual=weights)
    found = evaluate(ONE, OTHER, settings, files)
    assert found["lpips"] == pytest.approx(perceptual("lpips", weights)(ONE, OTHER).mean().item())
    assert found["dists"] == pytest.approx(perceptual("dists", weights)(ONE, OTHER).mean().item())
    for name, file in weights.items():
        assert found["conditions"][f"{name}_sha256"] == file_sha256(file)


def test_files_of_something_else_are_refused(weights: dict[str, Path]) -> None:
    for score, sentence in (("lpips", "no weights of LPIPS for VGG"), ("dists", "no weights of DISTS")):
        with pytest.raises(EdadmError, match=sentence):
            perceptual(score, weights | {score: weights["dists" if score == "lpips" else "lpips"]})
    with pytest.raises(EdadmError, match="lpips needs images of 16 pixels or more"):
        perceptual("lpips", weights)(ONE[:, :, :8], OTHER[:, :, :8])
    with pytest.raises(EdadmError, match="is not torchvision's VGG16; fetch it with `edadm download vgg16`"):
        perceptual("lpips", weights | {"vgg16": weights["lpips"]})
