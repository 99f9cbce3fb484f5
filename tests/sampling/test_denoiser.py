"""Condition and guidance."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from edadm.networks.build import build_network
from edadm.sampling.denoiser import Denoiser
from edadm.sampling.generate import generate_images

from ..networks.families import random_network, tiny

MODEL = tiny("ldm4_imagenet")


class Labels:
    """Image i has a context of i's."""

    def rows(self, indices: Sequence[int]) -> dict[str, Tensor]:
        return {"context": torch.stack([torch.full((1, 12), float(index)) for index in indices])}

    def unconditional(self) -> dict[str, Tensor]:
        return {"context": torch.full((1, 1, 12), -1.0)}


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    return random_network(build_network(MODEL.architecture), 1)


X, T = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([700, 700])


@torch.no_grad()
def test_guidance_moves_away_from_the_unconditional_prediction(unet: nn.Module) -> None:
    condition = Labels()
    given = unet(X, T, condition.rows([4, 2])["context"], return_dict=False)[0]
    nothing = condition.unconditional()["context"].expand(2, 1, 12)
    without = unet(X, T, nothing, return_dict=False)[0]
    assert (given - without).abs().max() > 0.01
    guided = Denoiser(unet, condition, 3.0).on([4, 2])(X, T)
    torch.testing.assert_close(guided, without + 3 * (given - without), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_guidance_of_one_evaluates_the_conditional_rows_only(unet: nn.Module) -> None:
    batches = []
    handle = unet.register_forward_pre_hook(lambda _, inputs: batches.append(len(inputs[0])))
    denoise = Denoiser(unet, Labels(), 1.0)
    eps = denoise.on([4, 2])(X, T)
    Denoiser(unet, Labels(), 1.5).on([4, 2])(X, T)
    handle.remove()
    assert batches == [2, 4]
    assert not denoise.is_guided
    assert torch.equal(eps, unet(X, T, Labels().rows([4, 2])["context"], return_dict=False)[0])


@torch.no_grad()
def test_unconditional_rows_come_first(unet: nn.Module) -> None:
    contexts = []
    handle = unet.register_forward_pre_hook(lambda _, inputs: contexts.append(inputs[2]))
    Denoiser(unet, Labels(), 2.0).on([4, 2])(X, T)
    handle.remove()
    assert contexts[0][:, 0, 0].tolist() == [-1, -1, 4, 2]


def test_a_conditional_denoiser_must_know_its_images(unet: nn.Module) -> None:
    with pytest.raises(AssertionError, match="which images"):
        Denoiser(unet, Labels(), 2.0)(X, T)


@torch.no_grad()
def test_half_precision_predicts_nearly_the_same_in_full(unet: nn.Module) -> None:
    exact, rough = (
        Denoiser(unet, Labels(), 1.0, precision).on([4, 2])(X, T) for precision in ("fp32", "bf16")
    )
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().max() < 0.2 * exact.abs().max()


@pytest.mark.parametrize("batch_size", [1, 3])
def test_an_image_has_the_same_condition_in_any_batch(batch_size: int, unet: nn.Module) -> None:
    sampler = MODEL.sampler.model_copy(update={"steps": 2})
    run = (MODEL.latent_shape, 0, batch_size)
    images = generate_images(Denoiser(unet, Labels(), 2.0), sampler, MODEL.schedule, range(3), *run)
    whole = generate_images(
        Denoiser(unet, Labels(), 2.0), sampler, MODEL.schedule, range(3), MODEL.latent_shape, 0, 2
    )
    assert (images.int() - whole.int()).abs().max() <= 1
