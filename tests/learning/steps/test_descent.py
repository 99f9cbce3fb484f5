"""The tables and pieces of the learning steps of one unit."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edadm.config.schema import Reconstruction
from edadm.learning.engine import learn_unit
from edadm.learning.steps.descent import Descent, align_layouts
from edadm.learning.steps.parameters import learning
from edadm.learning.steps.schedules import cosine_rates, rounding_exponents, row_table
from edadm.nn.insert import activation_quantizers
from edadm.quant.rounding import soft_rounding

from ..toys import float_block, fresh_stream, inner_layers, quantized_block, unit_data

SETTINGS = Reconstruction(iterations=20, batch_size=4, weight_lr=0.05, scale_lr=1e-2)


def test_every_batch_holds_different_rows() -> None:
    table = row_table(50, 6, 9, fresh_stream("rows"))
    assert table.shape == (50, 6)
    assert all(len(set(batch)) == 6 for batch in table.tolist())
    assert table.min() >= 0
    assert table.max() < 9


def test_rows_are_those_of_the_stream() -> None:
    one, same, other = (row_table(20, 4, 16, fresh_stream(key)) for key in ("one", "one", "other"))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_all_rows_are_drawn_about_equally_often() -> None:
    counts = row_table(2000, 8, 32, fresh_stream("rows")).flatten().bincount(minlength=32)
    assert counts.sum() == 16_000
    assert (counts.double() / 500 - 1).abs().max() < 0.2  # four standard deviations


@pytest.mark.parametrize("rows", [1, 3])
def test_a_batch_is_never_larger_than_the_number_of_rows(rows: int) -> None:
    table = row_table(5, 32, rows, fresh_stream("rows"))
    assert all(sorted(batch) == list(range(rows)) for batch in table.tolist())


def test_long_tables_do_not_repeat_themselves() -> None:
    table = row_table(2500, 4, 64, fresh_stream("rows"))
    assert table.shape == (2500, 4)
    assert (table[:1024] == table[1024:2048]).all(1).sum() == 0
    assert torch.equal(table[:1024], row_table(1024, 4, 64, fresh_stream("rows")))


def test_rates_fall_from_one_to_nearly_nothing() -> None:
    rates = cosine_rates(1000)
    assert rates.dtype == torch.float64
    assert rates[0] == 1
    assert rates[500] == pytest.approx(0.5)
    assert 0 < rates[-1] < 1e-5
    assert (rates.diff() < 0).all()


def test_the_regulariser_is_off_for_a_fifth_and_then_sharpens_from_20_to_2() -> None:
    is_on, exponents = rounding_exponents(1000)
    assert is_on.unique().tolist() == [0, 1]
    assert is_on[:201].sum() == 0
    assert is_on[201:].sum() == 799
    assert (exponents[:201] == 20).all()
    assert (exponents[201:].diff() < 0).all()
    assert 2 < exponents[-1] < 2.001


@pytest.mark.parametrize("rate", [0.05, 5.0])
def test_logarithms_of_step_sizes_learn_and_keep_step_sizes_positive(rate: float) -> None:
    block = float_block("attention")
    data = unit_data("attention", block, 8, 1)
    unit = quantized_block(block, data)
    before = {name: quantizer.scale.clone() for name, quantizer in activation_quantizers(unit).items()}
    report = learn_unit(
        unit, data, SETTINGS.model_copy(update={"scale_parameter": "log", "scale_lr": rate}), fresh_stream(0)
    )
    for name, quantizer in activation_quantizers(unit).items():
        assert (quantizer.scale > 0).all(), name
        assert not torch.equal(quantizer.scale, before[name]), name
        assert not quantizer.scale.requires_grad
    assert report.scale_drift > 0.02


def test_a_step_of_a_logarithm_is_a_factor() -> None:
    """Adam's first step is the learning rate, whatever the gradient."""
    block = float_block("layer")
    data = unit_data("layer", block, 8, 1)
    unit = quantized_block(block, data)
    settings = SETTINGS.model_copy(
        update={"scale_parameter": "log", "iterations": 1, "drop_probability": 0.0}
    )
    report = learn_unit(unit, data, settings, fresh_stream(0))
    assert report.scale_drift == pytest.approx(settings.scale_lr, rel=1e-3)


def alphas_after(rounding_weight: float) -> Tensor:
    """All rounding variables of a block after learning with a regulariser."""
    block = float_block("layer")
    data = unit_data("layer", block, 8, 1)
    unit = quantized_block(block, data)
    settings = SETTINGS.model_copy(update={"rounding_weight": rounding_weight, "iterations": 60})
    with learning(unit, settings, stream := fresh_stream(0)) as (alphas, sizes):
        descent = Descent(unit, data, settings, alphas, sizes, stream)
        for _ in range(settings.iterations):
            descent.iterate()
    return torch.cat([alpha.detach().flatten() for alpha in alphas])


def test_the_regulariser_pushes_rounding_towards_whole_numbers() -> None:
    free, pushed = (soft_rounding(alphas_after(weight)) for weight in (0.0, 1.0))
    undecided = [(1 - (2 * h - 1).abs()).mean() for h in (free, pushed)]
    assert undecided[1] < 0.8 * undecided[0]


def test_targets_get_the_strides_of_the_outputs() -> None:
    block = float_block("shortcut").to(memory_format=torch.channels_last)
    data = unit_data("shortcut", block, 6, 1)
    unit = quantized_block(block, data)
    target = data.target.contiguous()
    data.target, values = target, {name: tensor.clone() for name, tensor in data.layer_targets.items()}
    data.layer_targets = {name: tensor.contiguous() for name, tensor in data.layer_targets.items()}
    align_layouts(unit, data)
    output = data.quantized.call(unit)
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert not output.is_contiguous()
    assert data.target.stride() == output.stride()
    assert torch.equal(data.target, target)
    assert set(data.layer_targets) == set(inner_layers("shortcut", block))
    for name in ("conv1", "conv2"):
        assert data.layer_targets[name].is_contiguous(memory_format=torch.channels_last), name
        assert torch.equal(data.layer_targets[name], values[name]), name


def test_after_a_restart_the_same_steps_lead_to_the_same_place() -> None:
    block = float_block("plain")
    data = unit_data("plain", block, 8, 1)
    unit = quantized_block(block, data)
    with learning(unit, SETTINGS, stream := fresh_stream(0)) as (alphas, sizes):
        descent = Descent(unit, data, SETTINGS, alphas, sizes, stream)
        parameters = [*alphas, *sizes.parameters]
        start = [parameter.detach().clone() for parameter in parameters]
        ends, losses = [], []
        for _ in range(2):
            for _ in range(3):
                descent.iterate()
            assert stream.step == 3
            ends.append([parameter.detach().clone() for parameter in parameters])
            losses.append(descent.losses.clone())
            with torch.no_grad():
                for parameter, value in zip(parameters, start, strict=True):
                    parameter.copy_(value)
            descent.restart()
            assert stream.step == 0
            assert not descent.losses.any()
    assert torch.equal(*losses)
    assert (losses[0] > 0).sum() == 3
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(ends[0], start, strict=True))
