"""A correction in the sampler: what it does to eps and to the noise that is added, and what is refused."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor

from edadm.config.schema import Model
from edadm.errors import EdadmError
from edadm.sampling.correction import Correction
from edadm.sampling.denoiser import Denoiser
from edadm.sampling.generate import generate_images
from edadm.sampling.samplers.ddim import sample_ddim
from edadm.sampling.schedule import sampler_timesteps


def images(unet: UNet2DModel, model: Model, eta: float, correction: Correction | None) -> Tensor:
    sampler = model.sampler.model_copy(update={"eta": eta})
    denoise = Denoiser(unet, correction=correction.on("cpu") if correction else None)
    return generate_images(denoise, sampler, model.schedule, range(2), model.latent_shape, 0, 2)


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_a_factor_of_one_and_a_bias_of_zero_change_no_byte(
    eta: float, float_unet: UNet2DModel, model: Model
) -> None:
    visited = sampler_timesteps(model.sampler, model.schedule)
    plain, identity = (
        images(float_unet, model, eta, correction) for correction in (None, Correction.identity(visited, 3))
    )
    assert torch.equal(plain, identity)
    one = Correction.identity(visited, 3)
    one.shift[1, 2] = 0.05
    assert not torch.equal(plain, images(float_unet, model, eta, one))


def test_each_timestep_and_channel_has_its_own_line() -> None:
    correction = Correction.of(
        [7, 3],
        torch.tensor([[2.0, 3.0], [4.0, 5.0]]),
        torch.tensor([[0.5, 0.0], [0.0, -1.0]]),
        torch.tensor([0.0, 10.0]),
    )
    eps = torch.ones(2, 2, 1, 1)
    corrected = correction.on("cpu")(eps, torch.full((2, 2, 1, 1), 0.1), torch.tensor([7, 3]))
    torch.testing.assert_close(corrected.flatten(), torch.tensor([2.5, 3.0, 5.0, 5.0]))


class Noisy:
    """A denoiser that predicts nothing, and says how much noise is in that."""

    def __init__(self, variance: float):
        self.variance = variance

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(x)

    def excess_variance(self, timestep: int) -> float:
        return self.variance


def test_a_sampler_adds_so_much_less_noise_as_quantization_left() -> None:
    """One step from alpha 0.5 to 0.8 with eta 1: sigma^2 = 0.15, and eps reaches x by -0.6708."""
    alphas = torch.tensor([0.8, 0.5])

    def added(variance: float, eta: float = 1.0) -> float:
        draws = iter([torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)])
        reached = []
        sample_ddim(
            Noisy(variance),
            lambda: next(draws),
            [1, 0],
            alphas,
            eta,
            lambda step, t, x: reached.append(x.item()),
        )
        return reached[1]

    assert added(0.0) == pytest.approx(0.15**0.5)
    reach = (0.2 - 0.15) ** 0.5 - (0.8 * 0.5 / 0.5) ** 0.5
    assert added(0.1) == pytest.approx((0.15 - reach**2 * 0.1) ** 0.5)
    assert added(9.0) == 0  # more than there is cannot be taken off
    assert added(0.1, 0.0) == 0


def test_another_samplers_timesteps_are_refused() -> None:
    correction = Correction.identity([900, 500, 100], 3)
    correction.refuse_other_timesteps([900, 500, 100])
    for others in ([900, 700], [500, 100], [900, 500, 300, 100]):  # also a part of its own
        with pytest.raises(EdadmError, match="fitted for 3 steps of its own sampler, and this one visits"):
            correction.refuse_other_timesteps(others)


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("scale", torch.full((2, 3), torch.nan)),
        ("shift", torch.zeros(2, 2)),
        ("variance", torch.tensor([0.0, -1.0])),
        ("timesteps", torch.tensor([1.0, 2.0])),
        ("of_state", None),
    ],
)
def test_damaged_tables_are_refused_by_name(name: str, table: Tensor | None) -> None:
    tables: dict[str, Tensor | None] = {**Correction.identity([2, 1], 3).tensors(), name: table}
    with pytest.raises(ValueError, match=name):
        Correction.from_tensors({key: value for key, value in tables.items() if value is not None})
