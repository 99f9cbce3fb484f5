"""Learning one unit (acceptance checks 7 and 8)."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from edadm.config.schema import Reconstruction
from edadm.learning.capture.data import UnitData, listening
from edadm.learning.engine import UnitReport, learn_unit, unit_errors
from edadm.learning.steps.descent import Descent
from edadm.learning.steps.losses import squared_error
from edadm.learning.steps.parameters import learning
from edadm.nn.insert import activation_quantizers, quantized_layers

from .toys import KINDS, float_block, fresh_stream, inner_layers, quantized_block, unit_data

FBR = Reconstruction(iterations=80, batch_size=8, weight_lr=0.05, scale_lr=1e-4, layer_weight=0.8)
SHORT = FBR.model_copy(update={"iterations": 5})


def unit_error(unit: nn.Module, data: UnitData, batch_size: int) -> float:
    """Over all rows, none of them held out."""
    error, held_out = unit_errors(unit, data, batch_size)
    assert held_out is None
    return error


def nearest_error(block: nn.Module, kind: str, seed: int) -> float:
    """Held-out error of rounding to nearest."""
    unit = quantized_block(block, unit_data(kind, block, 32, 1))
    for layer in quantized_layers(unit).values():
        layer.set_codes(layer.nearest_codes())
    return unit_error(unit, unit_data(kind, block, 64, 2), 64)


@cache
def held_out(kind: str, seed: int, gamma: float) -> tuple[float, float, UnitReport]:
    """Held-out errors before and after learning, and the report of the learning."""
    block = float_block(kind, seed)
    data = unit_data(kind, block, 32, 1)
    unit = quantized_block(block, data)
    settings = FBR.model_copy(update={"layer_weight": gamma})
    report = learn_unit(unit, data, settings, fresh_stream("toy"))
    return nearest_error(block, kind, seed), unit_error(unit, unit_data(kind, block, 64, 2), 64), report


@pytest.mark.parametrize(("kind", "seed"), [("plain", 2), ("shortcut", 1), ("attention", 1), ("layer", 0)])
def test_learning_lowers_the_error_on_rows_it_has_not_seen(kind: str, seed: int) -> None:
    before, after, report = held_out(kind, seed, 0.8)
    assert after < 0.95 * before
    assert report.after < 0.95 * report.before
    assert 0 < report.flipped < 0.5
    assert report.scale_drift > 0


def test_inner_errors_lower_the_held_out_error_of_the_block() -> None:
    """FBR's claim: over two toy res-blocks gamma > 0 generalises better than the block error alone."""
    seeds = (2, 3)
    block_only = sum(held_out("plain", seed, 0.0)[1] for seed in seeds)
    with_layers = sum(held_out("plain", seed, 0.8)[1] for seed in seeds)
    assert with_layers < 0.95 * block_only


@pytest.mark.parametrize("kind", ["plain", "shortcut", "attention"])
def test_every_inner_error_has_a_gradient_for_its_own_rounding(kind: str) -> None:
    block = float_block(kind)
    data = unit_data(kind, block, 4, 1)
    unit = quantized_block(block, data)
    names = inner_layers(kind, block)
    assert len(names) == {"plain": 2, "shortcut": 3, "attention": 3}[kind]
    with learning(unit, SHORT, fresh_stream(0)), listening(unit, names) as outputs:
        data.quantized.call(unit)
        for name in names:
            layer = quantized_layers(unit)[name]
            assert layer.alpha is not None
            (gradient,) = torch.autograd.grad(
                squared_error(outputs[name], data.layer_targets[name]), layer.alpha, retain_graph=True
            )
            assert (gradient != 0).float().mean() > 0.5, name


@pytest.mark.parametrize("kind", KINDS)
def test_learning_is_the_same_for_the_same_generator(kind: str) -> None:
    block = float_block(kind)
    data = unit_data(kind, block, 8, 1)
    results = []
    for key in ("one", "one", "other"):
        unit = quantized_block(block, data)
        report = learn_unit(unit, data, SHORT, fresh_stream(key))
        scales = [quantizer.scale for quantizer in activation_quantizers(unit).values()]
        results.append((report, scales))
    assert results[0][0] == results[1][0]
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(results[0][1], results[2][1], strict=True))


def test_afterwards_nothing_learns_or_drops_any_more() -> None:
    block = float_block("shortcut")
    data = unit_data("shortcut", block, 8, 1)
    unit = quantized_block(block, data)
    report = learn_unit(unit, data, SHORT, stream := fresh_stream(0))
    assert stream.step.item() == SHORT.iterations
    for layer in quantized_layers(unit).values():
        assert layer.alpha is None
        assert layer.codes is not None
        assert torch.equal(layer.weight, layer.weight_quantizer.values(layer.codes))
    for quantizer in activation_quantizers(unit).values():
        assert not quantizer.scale.requires_grad
        assert (quantizer.scale > 0).all()
    assert unit_error(unit, data, 8) == unit_error(unit, data, 8) == report.after
    assert not data.quantized.call(unit).requires_grad


def test_the_report_begins_with_rounding_to_nearest() -> None:
    block = float_block("shortcut")
    data = unit_data("shortcut", block, 8, 1)
    report = learn_unit(quantized_block(block, data), data, SHORT, fresh_stream(0))
    unit = quantized_block(block, data)
    for layer in quantized_layers(unit).values():
        layer.set_codes(layer.nearest_codes())
    assert report.before == unit_error(unit, data, 8)


def test_the_report_says_what_fractions_gave_how_far_step_sizes_went_and_how_many_weights_turned() -> None:
    block = float_block("shortcut")
    data = unit_data("shortcut", block, 8, 1)
    settings = SHORT.model_copy(update={"scale_lr": 1e-3})
    report = learn_unit(quantized_block(block, data), data, settings, fresh_stream(0))
    unit = quantized_block(block, data)
    searched = [quantizer.scale.clone() for quantizer in activation_quantizers(unit).values()]
    nearest = [layer.nearest_codes().flatten() for layer in quantized_layers(unit).values()]
    with learning(unit, settings, stream := fresh_stream(0)) as (alphas, sizes):
        descent = Descent(unit, data, settings, alphas, sizes, stream)
        for _ in range(settings.iterations):
            descent.iterate()
    assert report.soft == pytest.approx(unit_error(unit, data, 8), rel=1e-5)
    assert abs(report.soft - report.after) > 1e-3 * report.after, "fractions and integers give other errors"
    ratios = [
        (q.scale / before).log()
        for q, before in zip(activation_quantizers(unit).values(), searched, strict=True)
    ]
    assert any((ratio < 0).any() for ratio in ratios), "a signed mean would be another"
    assert any((ratio > 0).any() for ratio in ratios)
    assert report.scale_drift == pytest.approx(torch.cat(ratios).abs().mean().item(), rel=1e-4)
    for layer in quantized_layers(unit).values():
        layer.harden()
    codes = torch.cat(
        [layer.codes.flatten() for layer in quantized_layers(unit).values() if layer.codes is not None]
    )
    assert report.flipped == pytest.approx((codes != torch.cat(nearest)).double().mean().item())


def test_a_learning_rate_larger_than_the_step_sizes_leaves_them_positive() -> None:
    block = float_block("attention")
    data = unit_data("attention", block, 8, 1)
    unit = quantized_block(block, data)
    learn_unit(unit, data, SHORT.model_copy(update={"scale_lr": 10.0}), fresh_stream(0))
    assert all((quantizer.scale > 0).all() for quantizer in activation_quantizers(unit).values())


def test_the_error_of_uneven_batches_is_the_error_of_all_rows() -> None:
    block = float_block("shortcut")
    data = unit_data("shortcut", block, 7, 1)
    unit = quantized_block(block, data)
    assert unit_error(unit, data, 3) == pytest.approx(unit_error(unit, data, 7), rel=1e-4)


def test_held_out_rows_are_the_last_ones_and_those_alone() -> None:
    block = float_block("shortcut")
    data = unit_data("shortcut", block, 8, 1)
    unit = quantized_block(block, data)
    data.held_out = 3
    learned, held_out = unit_errors(unit, data, 2)
    with torch.no_grad():
        output = data.quantized.call(unit)
    assert learned == pytest.approx(squared_error(output[:5], data.target[:5]).item(), rel=1e-4)
    assert held_out == pytest.approx(squared_error(output[5:], data.target[5:]).item(), rel=1e-4)
    assert held_out != pytest.approx(squared_error(output, data.target).item(), rel=1e-3)


def test_listening_ends_with_its_context() -> None:
    block = float_block("plain")
    data = unit_data("plain", block, 2, 1)
    with listening(block, ["conv1"]) as outputs:
        data.exact.call(block)
    heard = outputs.pop("conv1")
    data.exact.call(block)
    assert outputs == {}
    assert torch.equal(heard, data.layer_targets["conv1"])
