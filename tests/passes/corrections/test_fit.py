"""Corrections of predictions: by hand, on held-out rows, over steps without rows, and with guidance."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from edadm.config.methods import CORRECTIONS
from edadm.config.schema import Model, NoiseSchedule, Sampler
from edadm.errors import EdadmError
from edadm.networks.inputs import Rows
from edadm.nn.insert import quantized_layers
from edadm.passes.corrections.d2_dpm import d2_dpm_line
from edadm.passes.corrections.fit import FITS, fit_correction
from edadm.passes.corrections.pairs import Pairs, predicted_pairs
from edadm.passes.corrections.ptqd import fit_ptqd, ptqd_line
from edadm.passes.corrections.q_sched import fit_q_sched
from edadm.sampling.correction import Correction
from edadm.sampling.noise import keyed_generator
from edadm.sampling.samplers.ddim import sample_ddim
from edadm.sampling.schedule import alphas_cumprod, sampler_timesteps, step_factors

EXACT = torch.tensor([1.0, -1.0, 2.0, -2.0]).reshape(2, 2, 1, 1).double()  # channels (1, 2) and (-1, -2)


def test_the_table_of_names_and_that_of_fits_agree() -> None:
    assert FITS.keys() == CORRECTIONS.keys()


def test_ptqd_by_hand() -> None:
    """Noise of 0.25 eps and 0.1, -0.3 in the channels is found and taken off; nothing is left."""
    bias = torch.tensor([0.1, -0.3]).reshape(1, 2, 1, 1).double()
    exact = torch.tensor([1.0, 1.0, -1.0, -1.0]).reshape(2, 2, 1, 1).double()
    quantized = 1.25 * exact + bias
    line = ptqd_line(exact, quantized)
    torch.testing.assert_close(line["scale"], torch.tensor([0.8, 0.8]).double())
    torch.testing.assert_close(line["shift"], torch.tensor([-0.08, 0.24]).double())
    assert line["variance"].item() == pytest.approx(0, abs=1e-12)
    corrected = line["scale"][:, None, None] * quantized + line["shift"][:, None, None]
    torch.testing.assert_close(corrected, exact)


def test_ptqd_regresses_on_the_exact_prediction_and_keeps_what_is_uncorrelated() -> None:
    exact = torch.tensor([1.0, 1.0, -1.0, -1.0]).reshape(4, 1, 1, 1).double()
    rest = torch.tensor([0.2, -0.2, 0.2, -0.2]).reshape(4, 1, 1, 1).double()
    line = ptqd_line(exact, 0.5 * exact + rest)
    assert line["scale"].item() == pytest.approx(2)  # k = -0.5
    assert line["variance"].item() == pytest.approx(0.16)  # 0.04 / 0.25


def test_ptqd_refuses_what_has_nothing_of_the_prediction() -> None:
    with pytest.raises(EdadmError, match=r"-1\.50 times the prediction.*use more bits"):
        ptqd_line(EXACT, -0.5 * EXACT)


def test_d2_dpm_by_hand() -> None:
    """The regression runs the other way: from the quantized prediction to the noise."""
    exact = torch.tensor([1.0, 1.0, -1.0, -1.0]).reshape(4, 1, 1, 1).double()
    rest = torch.tensor([0.5, -0.5, 0.5, -0.5]).reshape(4, 1, 1, 1).double()
    quantized = exact + rest + 0.3
    line = d2_dpm_line(exact, quantized)
    assert line["scale"].item() == pytest.approx(0.8)  # 1 - 0.25 / 1.25
    assert line["shift"].item() == pytest.approx(0.2 * 0.3 - 0.3)
    assert line["variance"].item() == pytest.approx(0.2)  # 0.25 - 0.25^2 / 1.25
    left = line["scale"] * quantized + line["shift"] - exact
    assert left.square().mean().item() == pytest.approx(0.2)


def test_a_step_without_rows_has_what_lies_between_its_neighbours() -> None:
    exact = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1).repeat(2, 1, 1, 1)
    quantized = exact * torch.tensor([1.25, 1.25, 2.0, 2.0]).reshape(4, 1, 1, 1)
    timesteps = torch.tensor([100, 100, 300, 300])
    correction = fit_ptqd(Pairs(timesteps, exact, exact, quantized, [900, 300, 200, 100]))
    torch.testing.assert_close(correction.scale.flatten(), torch.tensor([0.5, 0.5, 0.65, 0.8]))
    assert correction.timesteps.tolist() == [900, 300, 200, 100]


def test_q_scheds_two_coefficients_are_found_and_act_on_the_step() -> None:
    """Predictions that are 1.25 times too large and hold 0.1 x_t: c and d undo both in one step of DDIM."""
    sampler, schedule = Sampler(steps=2, spacing="uniform"), NoiseSchedule()
    visited, factors = sampler_timesteps(sampler, schedule), step_factors(sampler, schedule)
    assert factors is not None
    (a, b), (later_a, later_b) = factors
    latents, exact = torch.randn(2, 2, 3, 4, 4, generator=keyed_generator(5, "q"))
    share = torch.tensor([0.2 * a / b, 0.2 * later_a / later_b]).float().reshape(2, 1, 1, 1)
    quantized = 1.25 * (exact - share * latents)  # d = 0.8, c - 1 = 0.2
    timesteps = torch.tensor(visited)
    pairs = Pairs(timesteps, latents, exact, quantized, visited, factors)
    correction = fit_q_sched(pairs)
    torch.testing.assert_close(correction.scale, torch.full((2, 3), 0.8))
    torch.testing.assert_close(correction.of_state, share.flatten())
    torch.testing.assert_close(
        correction.on("cpu")(quantized, latents, timesteps), exact, atol=1e-4, rtol=1e-4
    )
    step = 1.2 * a * latents[0] + 0.8 * b * quantized[0]
    torch.testing.assert_close(step, a * latents[0] + b * exact[0], atol=1e-4, rtol=1e-4)
    with pytest.raises(EdadmError, match="changes steps of DDIM"):
        fit_q_sched(dataclasses.replace(pairs, factors=None))


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_factors_of_steps_are_those_of_the_sampler(eta: float) -> None:
    sampler, schedule = Sampler(steps=3, eta=eta), NoiseSchedule()
    alphas, visited = alphas_cumprod(schedule), sampler_timesteps(sampler, schedule)
    states: list[float] = []
    draws = iter([1.0, 0.0, 0.0, 0.0])
    last = sample_ddim(
        lambda x, t: torch.full_like(x, 0.25),
        lambda: torch.full((1, 1, 1, 1), next(draws)).double(),
        visited,
        alphas,
        eta,
        lambda step, t, x: states.append(x.item()),
    )
    states.append(last.item())
    for (before, after), (a, b) in zip(pairwise(states), step_factors(sampler, schedule) or [], strict=True):
        assert after == pytest.approx(a * before + b * 0.25, rel=1e-9)
    assert step_factors(Sampler(steps=3, method="plms", spacing="uniform"), schedule) is None


@pytest.fixture(scope="module")
def rows(model: Model) -> Rows:
    """Four states at each step of the sampler, the noisiest first."""
    visited = sampler_timesteps(model.sampler, model.schedule)
    latents = torch.randn(4 * len(visited), *model.latent_shape, generator=keyed_generator(3, "rows"))
    return Rows({"latents": latents, "timesteps": torch.tensor(visited).repeat_interleave(4)})


def _error(correction: Correction, pairs: Pairs, of_steps: bool = False) -> float:
    """Of eps, or of the states that steps of the sampler lead to."""
    corrected = correction.on("cpu")(pairs.quantized, pairs.latents, pairs.timesteps)
    assert pairs.factors is not None
    reach = dict(zip(pairs.visited, (b if of_steps else 1.0 for _, b in pairs.factors), strict=True))
    factors = torch.tensor([reach[t] for t in pairs.timesteps.tolist()])[:, None, None, None]
    return (factors * (corrected - pairs.exact)).square().mean().item()


def test_corrections_lower_the_error_of_rows_they_have_not_seen(
    float_unet: UNet2DModel, gridded: Callable[[], nn.Module], rows: Rows, model: Model
) -> None:
    """W4A8 without learning, and a last layer whose weights came out larger and whose biases moved."""
    unet = gridded()
    for layer in quantized_layers(unet).values():
        layer.set_codes(layer.nearest_codes())
    unet.conv_out.weight.data *= 1.1
    unet.conv_out.bias = nn.Parameter(unet.conv_out.bias + torch.tensor([0.05, -0.05, 0.1]))
    whole = predicted_pairs(float_unet, unet, rows, model, 8)
    seen = torch.arange(len(rows)) % 4 > 0

    def part(chosen: Tensor) -> Pairs:
        tensors = (whole.timesteps, whole.latents, whole.exact, whole.quantized)
        return Pairs(*(tensor[chosen] for tensor in tensors), whole.visited, whole.factors)

    identity = Correction.identity(whole.visited, 3)
    for name, fit in FITS.items():
        given = part(~seen), CORRECTIONS[name].of_steps
        assert _error(fit(part(seen)), *given) < 0.9 * _error(identity, *given), name
    again = fit_correction("ptqd", float_unet, unet, rows[:4], model, 3)
    torch.testing.assert_close(again.scale[0], fit_ptqd(whole).scale[0], rtol=1e-5, atol=1e-5)
