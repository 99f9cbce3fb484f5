"""Weights of calibration rows: their gradient, what they favour, and how rows are drawn by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from edadm.config.schema import Model, Reconstruction
from edadm.learning.engine import learn_unit
from edadm.learning.steps.schedules import weighted_row_table
from edadm.learning.task import Task
from edadm.learning.unkept import NoUnitStore
from edadm.networks.inputs import Rows
from edadm.networks.units.trace import trace_units
from edadm.nn.insert import disabled, quantized_layers
from edadm.passes.methods import run_method
from edadm.passes.row_weights import RoundingErrors, learned_weights, parted, weights_gradient
from edadm.sampling.noise import keyed_generator

from ..learning.toys import float_block, fresh_stream, quantized_block, unit_data

GROUPS = [torch.tensor([12, 13]), torch.tensor([14]), torch.tensor([15])]
ROWS = torch.arange(12)


@pytest.fixture
def errors() -> Iterator[RoundingErrors]:
    block = float_block("layer")
    data = unit_data("layer", block, 16, 5)
    module = quantized_block(block, data, 3)
    alphas = [layer.start_rounding() for layer in quantized_layers(module).values()]
    with disabled(module):
        yield RoundingErrors(module, data, alphas, 5)


def outer_loss(errors: RoundingErrors, weights: Tensor, rate: float) -> float:
    """The mean error of the groups less the mean inner product of pairs, from every row's own gradient."""
    one = torch.ones(1)
    own = [errors.gradient(row, one) for row in ROWS.split(1)]
    with errors.moved(errors.gradient(ROWS, weights), -rate):
        means = [errors.of(group).mean() for group in GROUPS]
        firsts = [errors.gradient(group, torch.full((len(group),), 1 / len(group))) for group in GROUPS]
    by_weight = torch.tensor(
        [[-rate * sum((a * b).sum() for a, b in zip(g, first, strict=True)) for g in own] for first in firsts]
    )
    agreement = torch.stack([by_weight[t] @ by_weight[k] for t, k in combinations(range(3), 2)]).mean()
    return (torch.stack(means).mean() - agreement).item()


def test_the_gradient_of_the_weights_is_that_of_the_outer_loss(errors: RoundingErrors) -> None:
    weights = torch.linspace(0.05, 0.15, 12)
    rate = 2.0
    found = weights_gradient(errors, ROWS, GROUPS, weights, rate)
    direction = found / found.norm()
    ahead, behind = (outer_loss(errors, weights + sign * 0.02 * direction, rate) for sign in (1, -1))
    assert (ahead - behind) / 0.04 == pytest.approx(found.norm().item(), rel=0.05)


def test_rows_that_agree_with_validation_weigh_more_than_noise(errors: RoundingErrors) -> None:
    torch.manual_seed(0)
    errors._data.target[:6] += 3 * torch.randn_like(errors._data.target[:6])
    weights = learned_weights(errors, ROWS, GROUPS)
    assert weights.sum().item() == pytest.approx(1, abs=1e-5)
    assert weights[6:].mean() > 1.2 * weights[:6].mean()


def test_rows_are_drawn_by_their_weights() -> None:
    weights = torch.tensor([0.0, 0.1, 0.6, 0.0, 0.3, 0.0])
    drawn = weighted_row_table(4000, 4, weights, fresh_stream("rows"))
    assert drawn.shape == (4000, 4)
    shares = drawn.flatten().bincount(minlength=6) / drawn.numel()
    torch.testing.assert_close(shares, weights, atol=0.02, rtol=0)
    assert shares[[0, 3, 5]].sum() == 0
    assert torch.equal(drawn, weighted_row_table(4000, 4, weights, fresh_stream("rows")))


def test_a_unit_learns_from_rows_with_weight_alone() -> None:
    """Rows without weight may hold anything: the unit comes out as it does without that."""
    settings = Reconstruction(iterations=3, batch_size=4, weight_lr=0.5)
    weights = torch.tensor([1.0] * 4 + [0.0] * 4)
    codes = []
    for spoilt in (False, True):
        block = float_block("layer")
        data = unit_data("layer", block, 8, 5)
        module = quantized_block(block, data, 3)
        if spoilt:
            data.target[4:] = 100
        learn_unit(module, data, settings, fresh_stream("unit"), weights=weights)
        codes.append(next(iter(quantized_layers(module).values())).codes)
    assert torch.equal(*codes)


def test_one_row_in_twenty_validates_in_groups_by_timestep() -> None:
    timesteps = torch.arange(200).flip(0)
    rows, groups = parted(timesteps)
    assert len(rows) == 190
    assert [len(group) for group in groups] == [2] * 5
    assert not set(rows.tolist()) & set(torch.cat(groups).tolist())
    largest = [timesteps[group].max().item() for group in groups]
    assert largest == sorted(largest)
    assert [len(group) for group in parted(torch.arange(6))[1]] == [2, 1, 1, 1, 1]


def test_a_method_weighs_the_rows_of_each_unit_before_it_learns(
    float_unet: UNet2DModel, gridded: Callable[[], nn.Module], model: Model
) -> None:
    latents = torch.randn(12, *model.latent_shape, generator=keyed_generator(3, "rows"))
    rows = Rows({"latents": latents, "timesteps": torch.arange(12) * 80})
    units = [unit for unit in trace_units(float_unet) if unit.name in ("conv_in", "time_embedding.linear_2")]
    learned = {}
    for method in ("fbr", "gac"):
        settings = Reconstruction(method=method, iterations=4, batch_size=2, weight_lr=1.0)
        task = Task(float_unet, gridded(), units, rows, 0, settings, NoUnitStore())
        run_method(task)
        assert [unit.name for unit, _ in task.reports] == [unit.name for unit in units]
        learned[method] = quantized_layers(task.quantized_unet)["conv_in"].codes
        assert quantized_layers(task.quantized_unet)["conv_in"].alpha is None
    assert not torch.equal(learned["fbr"], learned["gac"])
