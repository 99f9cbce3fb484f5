"""The integer network for GPUs against the simulated model; on a CPU it computes by the operations' plain meaning."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn

from edadm.config.schema import Bits
from edadm.deploy.checkpoint import quantized_copy
from edadm.deploy.cuda import computes_with_integers, lower_for_cuda
from edadm.nn.integer import IntegerConv2d
from edadm.nn.layers import QuantizedConv2d, QuantizedLayer, QuantizedLinear
from edadm.nn.surgery import activation_quantizers, quantized_layers
from edadm.reconstruction.observe import set_ranges

Calibration = tuple[Tensor, Tensor]
LAYER_BOUND = 1e-5  # of a layer's largest output, fp32 against fp32
IMAGE_BOUND = 1.0  # of the mean quantization error: a sum rounded otherwise makes a code its neighbour, and what follows moves
HALF_BOUND = 2.0  # the same in bf16


def without_attention_grids(unet: nn.Module) -> nn.Module:
    for name, quantizer in activation_quantizers(unet).items():
        if "processor" in name:
            quantizer.enabled = False
    return unet


@pytest.fixture
def folded(gridded: Callable[[], nn.Module]) -> nn.Module:
    """W4A8 with codes; attention's grids are off, since the integer network has none."""
    unet = gridded()
    for layer in quantized_layers(unet).values():
        layer.set_codes(layer.nearest_codes())
    return without_attention_grids(unet.eval())


@torch.no_grad()
def test_every_integer_layer_agrees_with_its_simulation(folded: nn.Module, calibration: Calibration) -> None:
    lowered, seen = dict(lower_for_cuda(folded, torch.float32).named_modules()), []

    def compare(name: str, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(name)
        assert (lowered[name](*inputs) - output).abs().max() <= LAYER_BOUND * output.abs().max(), name

    expected = [name for name, layer in quantized_layers(folded).items() if computes_with_integers(layer)]
    for name in expected:
        assert isinstance(lowered[name], IntegerConv2d)
        folded.get_submodule(name).register_forward_hook(lambda _, inputs, output, n=name: compare(n, inputs, output))
    folded(*calibration)
    assert sorted(seen) == sorted(expected)
    assert [name for name, layer in lowered.items() if isinstance(layer, QuantizedLayer)] == []


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, IMAGE_BOUND), (torch.bfloat16, HALF_BOUND)])
@torch.no_grad()
def test_the_network_agrees_with_its_simulation(
    folded: nn.Module, float_unet: UNet2DModel, calibration: Calibration, dtype: torch.dtype, bound: float
) -> None:
    x, timesteps = calibration
    simulated, exact = folded(x, timesteps).sample, float_unet(x, timesteps).sample
    lowered = lower_for_cuda(folded, dtype)
    difference = lowered(x.to(dtype), timesteps).sample.float() - simulated
    per_image = difference.square().mean((1, 2, 3)).sqrt() / (simulated - exact).square().mean((1, 2, 3)).sqrt()
    assert per_image.max() < bound


@torch.no_grad()
def test_eight_bit_weights_with_either_zero_point(float_unet: UNet2DModel, calibration: Calibration) -> None:
    widths = Bits(weights=8, activations=8, range_batch_size=8, range_bins=512)
    unet = quantized_copy(float_unet, widths)
    set_ranges(unet, *calibration, widths)
    for layer in quantized_layers(unet).values():
        grid = layer.weight_quantizer
        parity = torch.arange(len(grid.zero_point)).remainder(2)[:, None].expand_as(grid.zero_point)
        grid.set_grid(grid.scale, 127.0 + parity)
        layer.set_codes(layer.nearest_codes())
    without_attention_grids(unet)
    simulated, exact = unet(*calibration).sample, float_unet(*calibration).sample
    difference = lower_for_cuda(unet, torch.float32)(*calibration).sample - simulated
    assert difference.square().mean().sqrt() < IMAGE_BOUND * (simulated - exact).square().mean().sqrt()


def test_layers_that_do_not_compute_with_integers_and_attention(folded: nn.Module) -> None:
    lowered = lower_for_cuda(folded)
    for name, layer in quantized_layers(folded).items():
        made = lowered.get_submodule(name)
        if layer.input_quantizer is None:
            assert type(made) in (nn.Conv2d, nn.Linear)
            assert made.weight.dtype == torch.bfloat16
            torch.testing.assert_close(made.weight.float(), layer.weight, rtol=2**-8, atol=0)
    assert all(isinstance(m.processor, AttnProcessor2_0) for m in lowered.modules() if isinstance(m, Attention))
    assert lowered.conv_norm_out.weight.dtype == torch.bfloat16


def test_windows_and_widths_that_the_kernel_does_not_know() -> None:
    assert computes_with_integers(QuantizedLinear(nn.Linear(4, 4), 8, 8, (4,)))
    assert not computes_with_integers(QuantizedLinear(nn.Linear(4, 4), 8, None, (4,)))
    assert not computes_with_integers(QuantizedLinear(nn.Linear(4, 4), 8, 16, (4,)))
    for options in ({"groups": 2}, {"dilation": 2}, {"stride": (1, 2)}, {"padding": (0, 1)}, {"padding": "same"}):
        assert not computes_with_integers(QuantizedConv2d(nn.Conv2d(4, 4, 3, **options), 8, 8, (4,))), options
    assert computes_with_integers(QuantizedConv2d(nn.Conv2d(4, 4, 3, stride=2, padding=1), 8, 8, (4,)))
