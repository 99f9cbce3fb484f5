"""Images from noise."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DModel

from edadm.config.schema import Model
from edadm.errors import EdadmError
from edadm.sampling.denoiser import Denoiser
from edadm.sampling.generate import generate_images, to_uint8


def test_pixels_are_clamped_and_rounded() -> None:
    latents = torch.tensor([-9.0, -1.0, -0.5, 0.0, 0.5, 1.0, 9.0]).reshape(1, 1, 1, 7)
    assert to_uint8(latents).flatten().tolist() == [0, 0, 64, 128, 191, 255, 255]


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_an_image_is_the_same_whatever_batch_or_shard_it_is_in(
    batch_size: int, float_unet: UNet2DModel, model: Model
) -> None:
    sampler = model.sampler.model_copy(update={"steps": 2, "eta": 1.0})

    def images(indices: range, size: int) -> torch.Tensor:
        return generate_images(
            Denoiser(float_unet), sampler, model.schedule, indices, model.latent_shape, 0, size
        )

    whole = images(range(5), 5)
    parts = torch.cat([images(range(0, 3), batch_size), images(range(3, 5), batch_size)])
    assert whole.shape == (5, 3, 16, 16)
    assert (whole.int() - parts.int()).abs().max() <= 1
    assert (whole != parts).float().mean() < 0.01
    assert len({tuple(image.flatten().tolist()) for image in whole}) == 5


def test_the_seed_changes_every_image(float_unet: UNet2DModel, model: Model) -> None:
    sampler = model.sampler.model_copy(update={"steps": 1})
    first, second = (
        generate_images(Denoiser(float_unet), sampler, model.schedule, [0], model.latent_shape, s, 1)
        for s in (0, 1)
    )
    assert (first != second).float().mean() > 0.3


def test_images_that_are_no_numbers_are_refused_named_and_counted(model: Model) -> None:
    def broken(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return x * torch.inf

    sentence = (
        "images 4 to 5 are not finite, 2 of the 2 made so far; use precision: fp32 or bf16, or check the "
        "weights"
    )
    with pytest.raises(EdadmError, match=sentence):
        generate_images(broken, model.sampler, model.schedule, range(4, 6), model.latent_shape, 0, 2)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([1], "image 7 is not finite, 1 of the 6 made so far;"),
        ([0, 2], "images 6, 8 are not finite, 2 of the 6 made so far;"),
    ],
)
def test_single_images_that_are_no_numbers_are_named(rows: list[int], sentence: str, model: Model) -> None:
    calls = []

    def broken(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        x = x.clone()
        if len(calls) > model.sampler.steps:  # the second batch
            x[rows, 0, 0, 0] = torch.nan
        return x

    with pytest.raises(EdadmError, match=sentence):
        generate_images(broken, model.sampler, model.schedule, range(3, 12), model.latent_shape, 0, 3)
