"""Grids before learning."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.config.schema import Bits
from edadm.deploy.grids import grids, quantized_copy
from edadm.errors import EdadmError
from edadm.networks.build import build_network
from edadm.networks.settings.architecture import Architecture
from edadm.nn.insert import activation_quantizers
from edadm.nn.layers import QuantizedConv2d, QuantizedLayer, QuantizedLinear
from edadm.passes.ranges import observing, set_ranges, set_weight_grid
from edadm.quant import ranges as ranges_module
from edadm.quant.affine import dequantize, quantize, scale_and_zero_point
from edadm.quant.observer import RunningRange
from edadm.quant.ranges import best_range

from ..conftest import as_rows, reinitialise

SMALL = Architecture(
    image_size=8, channels=8, multipliers=(1,), blocks_per_level=1, attention_resolutions=(), norm_groups=4
)
Calibration = tuple[Tensor, Tensor]


def test_weights_get_a_symmetric_range_per_output_channel() -> None:
    layer = nn.Conv2d(4, 6, 3)
    reinitialise(layer, 0)
    with torch.no_grad():
        layer.weight *= torch.logspace(-2, 2, 6)[:, None, None, None]
    quantized = QuantizedConv2d(layer, 4, 8, (4,))
    set_weight_grid(quantized)
    for row in range(6):
        best = best_range(layer.weight.detach()[row].reshape(1, -1), 4)
        scale, zero_point = scale_and_zero_point(best.low, best.high, 4)
        assert quantized.weight_quantizer.scale[row].item() == pytest.approx(scale.item())
        assert quantized.weight_quantizer.zero_point[row].item() == zero_point.item() == 8


def test_segments_of_a_split_weight_get_their_own_ranges() -> None:
    layer = nn.Conv2d(10, 3, 1)
    reinitialise(layer, 1)
    with torch.no_grad():
        layer.weight[:, 4:] *= 50
    split, whole = QuantizedConv2d(layer, 4, 8, (4, 6)), QuantizedConv2d(layer, 4, 8, (10,))
    for quantized in (split, whole):
        set_weight_grid(quantized)
    assert (split.weight_quantizer.scale[:, 1] > 10 * split.weight_quantizer.scale[:, 0]).all()

    def error(quantized: QuantizedLayer) -> float:
        values = quantized.weight_quantizer.values(quantized.nearest_codes())
        return (values - layer.weight)[:, :4].abs().mean().item()

    assert error(split) < 0.1 * error(whole)


def test_a_one_signed_weight_gets_a_one_sided_range() -> None:
    layer = nn.Linear(8, 3)
    reinitialise(layer, 2)
    with torch.no_grad():
        layer.weight.abs_()
    quantized = QuantizedLinear(layer, 4, 8, (8,))
    set_weight_grid(quantized)
    assert quantized.weight_quantizer.zero_point.flatten().tolist() == [0, 0, 0]
    assert quantized.nearest_codes().max() == 15


def test_all_grids_are_set_and_all_weights_folded(
    float_unet: UNet2DModel, ranges: dict[str, Tensor], bits: Bits
) -> None:
    unet = quantized_copy(float_unet, bits)
    assert set(ranges) == set(grids(unet))
    scales = {name: tensor for name, tensor in ranges.items() if name.endswith(".scale")}
    assert all((scale > 0).all() for scale in scales.values())
    fresh = grids(unet)
    assert not any(torch.equal(scale, fresh[name]) for name, scale in scales.items())


def test_softmax_is_one_sided_and_convolution_inputs_are_symmetric(ranges: dict[str, Tensor]) -> None:
    softmax = [
        tensor.item() for name, tensor in ranges.items() if name.endswith("softmax_quantizer.zero_point")
    ]
    assert softmax == [0] * len(softmax)
    assert len(softmax) == 4
    inputs = [tensor for name, tensor in ranges.items() if name.endswith("conv1.input_quantizer.zero_point")]
    assert {int(value) for tensor in inputs for value in tensor} == {128}


def test_a_split_input_has_two_scales(ranges: dict[str, Tensor]) -> None:
    scale = ranges["up_blocks.0.resnets.0.conv_shortcut.input_quantizer.scale"]
    assert scale.shape == (2,)
    assert scale[0] != scale[1]


def test_observing_leaves_the_grid_of_the_running_range(
    gridded: Callable[[], nn.Module], calibration: Calibration
) -> None:
    unet, bits = gridded(), Bits(range_batch_size=4, range_bins=None)
    quantizer = activation_quantizers(unet)["conv_in.input_quantizer"]
    with observing(unet.conv_in, bits) as running, torch.no_grad():
        for x in calibration[0].split(4):
            unet.conv_in(x)
    expected = RunningRange(8, bits.range_momentum)
    for x in calibration[0].split(4):
        scale, zero_point = expected.update(x)
    assert [one.batches for one in running["input_quantizer"]] == [2]
    assert quantizer.scale.item() == scale.item()
    assert quantizer.zero_point.item() == zero_point.item()
    assert not quantizer._forward_pre_hooks


def test_later_layers_see_what_earlier_grids_let_through_batch_by_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """During the pass every quantizer already computes with its running grid."""
    monkeypatch.setattr(ranges_module, "THRESHOLDS", 10)  # which range is best does not matter here
    bits = Bits(weights=2, activations=2, softmax=2, range_batch_size=5, range_bins=64, layers={})
    unet = build_network(SMALL)
    reinitialise(unet, 3)
    quantized = quantized_copy(unet.eval().requires_grad_(False), bits)
    seen: list[Tensor] = []
    quantized.time_embedding.linear_2.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    latents, timesteps = (
        torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0)),
        torch.arange(0, 800, 100),
    )
    rows: list[int] = []
    set_ranges(quantized, as_rows((latents, timesteps)), bits, rows.append)
    assert rows == [5, 3]
    first = quantized.time_embedding.linear_1
    scale, zero_point = first.input_quantizer.grid(2)
    on_grid = dequantize(
        quantize(quantized.time_proj(timesteps[5:]), scale, zero_point, 2), scale, zero_point
    )
    expected = F.silu(F.linear(on_grid, first.weight, first.bias))
    torch.testing.assert_close(seen[1], expected)


def test_an_asymmetric_grid_is_finer_where_inputs_are_lopsided(
    gridded: Callable[[], nn.Module], calibration: Calibration, ranges: dict[str, Tensor], bits: Bits
) -> None:
    unet, asymmetric = gridded(), bits.model_copy(update={"activation_grid": "asymmetric"})
    block = unet.up_blocks[0].resnets[0]
    with observing(block, asymmetric), torch.no_grad():
        unet(*calibration)
    name, found = "up_blocks.0.resnets.0", block.conv1.input_quantizer
    assert found.zero_point.item() < 100 < ranges[f"{name}.conv1.input_quantizer.zero_point"].item() == 128
    assert found.scale.item() < 0.8 * ranges[f"{name}.conv1.input_quantizer.scale"].item()
    assert (
        block.conv_shortcut.input_quantizer.scale.shape
        == block.conv_shortcut.input_quantizer.zero_point.shape
        == (2,)
    )


def test_numbers_that_are_not_finite_are_refused_by_name(
    float_unet: UNet2DModel, calibration: Calibration, bits: Bits
) -> None:
    unet = quantized_copy(float_unet, bits)
    rows = calibration[0].clone()
    rows[3, 0, 0, 0] = torch.nan
    with pytest.raises(
        EdadmError, match=r"the input of conv_in\.input_quantizer is not finite; look for such numbers"
    ):
        set_ranges(unet, as_rows((rows, calibration[1])), bits)
    unet = quantized_copy(float_unet, bits)
    unet.conv_out.weight = nn.Parameter(unet.conv_out.weight * torch.inf, requires_grad=False)
    with pytest.raises(EdadmError, match=r"conv_out\.weight holds -?(inf|nan); convert the checkpoint again"):
        set_ranges(unet, as_rows(calibration), bits)
