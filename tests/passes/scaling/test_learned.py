"""Scales that are learned: on a made-up layer, and what becomes of a network."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from edadm.config.schema import Bits, LearnedScales
from edadm.deploy.grids import grids, quantized_copy, set_grids
from edadm.networks.families import network_call
from edadm.networks.inputs import Rows
from edadm.nn.insert import disabled, quantized_layers
from edadm.nn.layers import QuantizedConv2d
from edadm.passes.prepare import prepare
from edadm.passes.ranges import observing, set_weight_grid
from edadm.passes.scaling import learned
from edadm.passes.scaling.learned import learn_scales, learned_exponents
from edadm.passes.scaling.product import Product
from edadm.quant import ranges
from edadm.quant.transforms import smoothing_exponents

from ...conftest import Calibration, as_rows

LAYERS = (
    "conv_in",
    "time_embedding.linear_1",
    "mid_block.attentions.0.*",
    "up_blocks.0.resnets.0.conv_shortcut",
)
TOLD = LearnedScales(layers=LAYERS, iterations=6, rows=4, batch_size=4, focus=2, learning_rate=0.5)
BITS = Bits(
    weights=4,
    learned_scales=TOLD,
    range_batch_size=4,
    range_bins=512,
    layers={"conv_out": {"weights": 8, "activations": None}},
)
STEPS = torch.arange(16) % 4 * 100


def made_up(kernel: int = 3) -> tuple[nn.Conv2d, Tensor]:
    """A convolution, and inputs with outliers in two channels and hardly anything in a third."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(16, 24, kernel, padding=kernel // 2).requires_grad_(False)
    layer.weight.copy_(torch.randn(24, 16, kernel, kernel, generator=generator) / 10)
    x = torch.randn(16, 16, 6, 6, generator=generator)
    x[:, 3] *= 40
    x[:, 5] *= 8
    x[:, 7] *= 0.1
    return layer, x


def product(layer: nn.Conv2d, x: Tensor, bits: int = 8, told: LearnedScales = TOLD) -> Product:
    quantized = QuantizedConv2d(layer, bits, 8, (16,), ("smooth",))
    return Product([quantized], x, STEPS, Bits(weights=bits, range_bins=512), told)


def error(layer: nn.Conv2d, x: Tensor, exponents: Tensor, bits: int = 8) -> float:
    """What is left with these factors, after all grids have been searched as they always are."""
    quantized = QuantizedConv2d(layer, bits, 8, (16,), ("smooth",))
    quantized.set_smoothing(exponents)
    set_weight_grid(quantized, off_centre=True)
    quantized.set_codes(quantized.nearest_codes())
    with observing(quantized, Bits(range_bins=512)):
        found = quantized(x)
    return (found - layer(x)).square().mean().item()


@torch.no_grad()
def test_the_error_of_a_layer_with_outliers_is_less_than_without_factors_and_than_smoothed() -> None:
    layer, x = made_up()
    told = LearnedScales(iterations=60, batch_size=16, focus=0, learning_rate=0.2)
    found = learned_exponents(product(layer, x, told=told), is_voted=False, name="layer")
    largest = x.abs().amax((0, 2, 3)), layer.weight.abs().amax((0, 2, 3))
    closed_form = error(layer, x, smoothing_exponents(*largest, 0.5))
    assert error(layer, x, found) < 0.25 * error(layer, x, torch.zeros_like(found))
    assert error(layer, x, found) < 0.9 * closed_form
    assert found[3] > found[5] >= found[0]


@torch.no_grad()
def test_errors_are_those_of_the_layer_on_the_searched_grids() -> None:
    layer, x = made_up()
    exponents = torch.arange(16, dtype=torch.int8) % 3 - 1
    errors = product(layer, x, bits=4).all_errors(exponents)
    assert errors.shape == (16,)
    assert errors.mean().item() == pytest.approx(error(layer, x, exponents, bits=4), rel=1e-3)


@torch.no_grad()
def test_factors_that_help_nothing_are_not_kept() -> None:
    layer, x = made_up()
    told = TOLD.model_copy(update={"iterations": 1, "learning_rate": 1e-9})
    found = learned_exponents(product(layer, x, told=told), is_voted=False, name="layer")
    assert found.tolist() == [0] * 16
    far = TOLD.model_copy(update={"iterations": 2, "learning_rate": 1000.0})  # beyond all sense
    assert learned_exponents(product(layer, x, told=far), False, "layer").tolist() == [0] * 16


@torch.no_grad()
def test_votes_are_the_start_where_they_help() -> None:
    layer, x = made_up(kernel=1)
    told = TOLD.model_copy(update={"iterations": 1, "learning_rate": 1e-9})
    one = product(layer, x, told=told)
    found = learned_exponents(one, is_voted=True, name="layer")
    assert torch.equal(found, one.voted())
    assert (found[3].item(), found.min().item()) == (0, -3)
    assert error(layer, x, found) < 0.5 * error(layer, x, torch.zeros_like(found))


def test_a_timestep_weighs_by_its_share_of_the_errors() -> None:
    one = product(*made_up())
    assert one.by_step(torch.tensor([1.0, 3.0, 2.0]), torch.tensor([0, 0, 2])).nan_to_num(-1).tolist() == [
        2,
        -1,
        2,
        -1,
    ]
    weights = one.weigh(torch.tensor([1.0, 0.0, 3.0, 4.0]))
    assert weights.tolist() == pytest.approx([(7 / 8) ** 2, 1, (5 / 8) ** 2, (1 / 2) ** 2])


@pytest.fixture(scope="module")
def rows(calibration: Calibration) -> Rows:
    latents, timesteps = calibration
    return as_rows((latents * torch.tensor([100.0, 1.0, 1.0])[:, None, None], timesteps))


@torch.no_grad()
def test_a_network_keeps_what_it_computes_and_layers_of_one_norm_share_factors(
    float_unet: UNet2DModel, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "THRESHOLDS", 10)
    unet, told = quantized_copy(float_unet, BITS), []
    learn_scales(unet, rows, BITS, told.append)
    assert sum(told) == len(rows)
    smoothed = {name: layer for name, layer in quantized_layers(unet).items() if layer.smooth is not None}
    attention = [f"mid_block.attentions.0.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")]
    assert set(smoothed) == {"conv_in", "time_embedding.linear_1", *attention, LAYERS[-1]}
    assert smoothed["conv_in"].smoothing[0] > smoothed["conv_in"].smoothing[1:].max()
    query, key, value, _ = (smoothed[name].smoothing for name in attention)
    assert torch.equal(query, key)
    assert torch.equal(query, value)
    plain = quantized_copy(float_unet, BITS.model_copy(update={"learned_scales": None}))
    with disabled(unet), disabled(plain):
        assert torch.equal(network_call(unet, rows), network_call(plain, rows))

    monkeypatch.setattr(learned, "KEPT", 1)  # a layer at a time
    again = quantized_copy(float_unet, BITS)
    learn_scales(again, rows, BITS)
    for name, layer in quantized_layers(again).items():
        assert layer.smooth is None or torch.equal(layer.smooth, smoothed[name].smooth), name


def test_ranges_are_searched_behind_them(
    float_unet: UNet2DModel, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "THRESHOLDS", 4)
    told = TOLD.model_copy(update={"layers": ("conv_in",)})
    few, rows = BITS.model_copy(update={"learned_scales": told, "range_bins": 32}), rows[:2]
    unet, seen = quantized_copy(float_unet, few), []
    prepare(unet, rows, few, seen.append)
    assert sum(seen) == few.range_passes * len(rows) == 3 * len(rows)
    from_file = quantized_copy(float_unet, few)
    set_grids(from_file, grids(unet))
    assert from_file.conv_in.smoothing.any()
    assert torch.equal(from_file.conv_in.nearest_codes(), unet.conv_in.codes)


def test_presets_without_them_stay_as_they_were() -> None:
    assert "learned_scales" not in Bits().model_dump()
    assert (Bits().range_passes, Bits(smoothing=0.5).range_passes) == (1, 2)
    assert Bits.model_validate(BITS.model_dump()) == BITS
