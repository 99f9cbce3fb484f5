"""Rounding is learned of layers that are rotated and lie beside branches, with grids of tokens."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DModel

from edadm.config.schema import Bits, LayerBits, Linear, Reconstruction
from edadm.deploy.grids import grids, quantized_copy, set_grids
from edadm.networks.families import network_call
from edadm.nn.insert import disabled, quantized_layers, transformed_layers
from edadm.passes.low_rank import take_off_low_rank
from edadm.passes.prepare import prepare
from edadm.passes.rotation import rotate
from edadm.quant import ranges

from ..conftest import as_rows
from ..learning.runs import Calibration, UnitsInMemory, learned

LAYERS = ("mid_block.attentions.*",)
BITS = Bits(
    weights=4,
    range_bins=64,
    weight_zero_point="middle",
    layers={
        name: LayerBits(weights=None, activations=None) for name in ("down_*", "up_*", "conv_*", "time_*")
    },
    linear=Linear(layers=LAYERS, activations=4, inputs="dynamic", rotation="hadamard", rank=2),
)
SETTINGS = Reconstruction(iterations=2, batch_size=4, chain_batch_size=8, mix_probability=1.0)


def test_rounding_of_what_is_left_is_learned_and_branches_stay(
    float_unet: UNet2DModel, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "THRESHOLDS", 5)
    searched, unet = quantized_copy(float_unet, BITS), quantized_copy(float_unet, BITS)
    prepare(searched, as_rows(calibration), BITS)
    set_grids(unet, found := grids(searched))
    reports = {
        unit.name: report
        for unit, report in learned(float_unet, unet, calibration, SETTINGS, UnitsInMemory())
    }
    report = reports["mid_block.attentions.0"]
    assert 0 < report.after < report.before
    moved = 0
    for name, layer in transformed_layers(unet).items():
        assert layer.codes is not None
        assert torch.equal(layer.down, found[f"{name}.down"])  # type: ignore[arg-type]
        nearest = quantized_layers(searched)[name].codes
        assert ((layer.codes.int() - nearest.int()).abs() <= 1).all()
        moved += int((layer.codes != nearest).sum())
    assert moved > 0


@torch.no_grad()
def test_the_passes_change_no_layer_but_those_that_are_named_and_leave_the_output(
    float_unet: UNet2DModel, calibration: Calibration
) -> None:
    unet, rows = quantized_copy(float_unet, BITS), as_rows(calibration)
    before = {name: layer.weight.detach().clone() for name, layer in quantized_layers(unet).items()}
    rotate(unet, rows, BITS, lambda count: None)
    take_off_low_rank(unet, rows, BITS, lambda count: None)
    changed = {
        name for name, layer in quantized_layers(unet).items() if not torch.equal(layer.weight, before[name])
    }
    assert changed == {f"mid_block.attentions.0.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")}
    assert changed == transformed_layers(unet).keys()
    with disabled(unet):
        torch.testing.assert_close(
            network_call(unet, rows), network_call(float_unet, rows), rtol=1e-3, atol=1e-3
        )
