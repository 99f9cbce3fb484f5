"""Integer inference on a CPU against the simulated model."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from edadm.config.schema import Bits
from edadm.deploy.backends.onednn import lower_for_cpu
from edadm.deploy.fuse.cpu import CpuConv2d, CpuLayer, CpuLinear, CpuResnetBlock
from edadm.errors import EdadmError
from edadm.kernels.cpu import choice
from edadm.networks.build import build_network
from edadm.networks.families import network_call
from edadm.networks.settings.architecture import Architecture
from edadm.nn.insert import quantized_layers
from edadm.nn.layers import QuantizedConv2d, QuantizedLayer, QuantizedLinear
from edadm.quant import ranges

from ...networks.families import FAMILIES, calibrated

Calibration = tuple[Tensor, Tensor]
LAYER_BOUND = 1e-5  # of a layer's largest output, to the simulated layer in fp32
IMAGE_BOUND = 1.0  # of the mean quantization error: where a sum rounded otherwise turns a code into its neighbour, all that follows moves


def filled(layer: QuantizedLayer, input_zero_points: tuple[int, ...], seed: int = 0) -> QuantizedLayer:
    """With random codes, the extreme ones among them in every row, and with grids of powers of two."""
    generator = torch.Generator().manual_seed(seed)
    grid, rows, segments = layer.weight_quantizer, layer.weight.shape[0], len(input_zero_points)
    middle = 2 ** (grid.bits - 1)
    zero_point = middle - torch.randint(0, 2, (rows, segments), generator=generator)
    grid.set_grid(2.0 ** torch.randint(-9, -4, (rows, segments), generator=generator), zero_point.float())
    codes = torch.randint(0, 2**grid.bits, layer.weight.shape, generator=generator, dtype=torch.uint8)
    codes[:, 0], codes[:, -1] = 0, 2**grid.bits - 1
    layer.set_codes(codes)
    assert layer.input_quantizer is not None
    layer.input_quantizer.set_grid(torch.full((segments,), 2.0**-5), torch.tensor(input_zero_points).float())
    return layer


def parts(shape: tuple[int, ...], seed: int = 1) -> Tensor:
    """Inputs some of which lie beyond the grid on either side."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 6


CONVOLUTIONS = {
    "3x3": (nn.Conv2d(24, 40, 3, padding=1), (2, 24, 9, 7), (24,), (128,)),
    "stride 2, ragged": (nn.Conv2d(5, 7, 3, stride=2), (3, 5, 9, 9), (5,), (91,)),
    "1x1 of two segments": (nn.Conv2d(24, 16, 1), (2, 24, 8, 8), (9, 15), (128, 3)),
    "without bias, one channel": (nn.Conv2d(1, 1, 3, padding=1, bias=False), (1, 1, 4, 4), (1,), (0,)),
}


@pytest.mark.parametrize("case", CONVOLUTIONS)
@pytest.mark.parametrize("bits", [(8, 8), (4, 8), (4, 6), (3, 5)])
@torch.no_grad()
def test_a_convolution_computes_the_sums_of_its_codes_exactly(case: str, bits: tuple[int, int]) -> None:
    float_layer, shape, sizes, zero_points = CONVOLUTIONS[case]
    zero_points = tuple(min(zero_point, 2 ** bits[1] - 1) for zero_point in zero_points)
    layer = filled(QuantizedConv2d(float_layer, *bits, sizes), zero_points).double()
    lowered, x = CpuConv2d(layer.float()), parts(shape)
    exact = layer.double()(x.double())
    torch.testing.assert_close(lowered(x).double(), exact, rtol=1e-6, atol=1e-6 * exact.abs().max().item())


@pytest.mark.parametrize("shape", [(3, 24), (2, 5, 24), (24,)])
@torch.no_grad()
def test_a_linear_layer_does_too_for_any_leading_axes(shape: tuple[int, ...]) -> None:
    layer = filled(QuantizedLinear(nn.Linear(24, 11), 8, 8, (24,)), (128,))
    lowered, x = CpuLinear(layer), parts(shape)
    exact = layer.double()(x.double())
    assert lowered(x).shape == exact.shape
    torch.testing.assert_close(lowered(x).double(), exact, rtol=1e-6, atol=1e-6 * exact.abs().max().item())


@pytest.mark.parametrize("zero_point", [0, 1, 127, 128, 255])
def test_codes_are_those_of_the_simulated_layer_in_any_memory_layout(zero_point: int) -> None:
    layer = filled(QuantizedConv2d(nn.Conv2d(6, 8, 1), 8, 8, (6,)), (zero_point,))
    assert layer.input_quantizer is not None
    layer.input_quantizer.set_grid(torch.tensor([0.0317]), torch.tensor([float(zero_point)]))
    x = parts((2, 6, 5, 5))
    x[0, 0, 0] = (
        torch.tensor([0.5, 1.5, -0.5, -1.5, 2.5]) * layer.input_quantizer.scale
    )  # halves are rounded to even
    for given in (x, x.contiguous(memory_format=torch.channels_last), x.transpose(2, 3)):
        integers = CpuConv2d(layer).segments[0].quantize_input(given)
        assert integers.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(integers + zero_point, layer.input_quantizer.codes(given))


@pytest.fixture
def folded(gridded: Callable[[], nn.Module]) -> nn.Module:
    unet = gridded()
    for layer in quantized_layers(unet).values():
        layer.set_codes(layer.nearest_codes())
    return unet.eval()


@torch.no_grad()
def test_every_layer_of_a_network_agrees_with_its_simulation(
    folded: nn.Module, calibration: Calibration
) -> None:
    lowered, seen = dict(lower_for_cpu(folded).named_modules()), 0

    def assert_near(name: str, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal seen
        seen += 1
        assert (lowered[name](*inputs) - output).abs().max() <= LAYER_BOUND * output.abs().max(), name

    for name, layer in quantized_layers(folded).items():
        if layer.input_quantizer is not None:
            assert isinstance(lowered[name], CpuLayer)
            layer.register_forward_hook(lambda _, inputs, output, n=name: assert_near(n, inputs, output))
    folded(*calibration)
    assert seen == len(
        [layer for layer in quantized_layers(folded).values() if layer.input_quantizer is not None]
    )


@torch.no_grad()
def test_the_blocks_in_place_compute_what_diffusers_blocks_do(
    folded: nn.Module, calibration: Calibration
) -> None:
    lowered = lower_for_cpu(folded)
    assert any(isinstance(module, CpuResnetBlock) for module in lowered.modules())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CpuResnetBlock, "fits", staticmethod(lambda block: False))
        plain = lower_for_cpu(folded)
    x, t = calibration
    before = x.clone()
    assert torch.equal(lowered(x, t).sample, plain(x, t).sample)
    assert torch.equal(x, before)


def mean_difference(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().mean().item()


@torch.no_grad()
def test_outputs_are_equal_to_rounding_until_a_code_turns_over(
    folded: nn.Module, float_unet: nn.Module, calibration: Calibration
) -> None:
    x, t = calibration
    simulated, integer = folded(x, t).sample, lower_for_cpu(folded)(x, t).sample
    per_image = (integer - simulated).abs().flatten(1).amax(1)
    assert (per_image < 1e-5).sum() >= 4
    assert mean_difference(integer, simulated) <= IMAGE_BOUND * mean_difference(
        simulated, float_unet(x, t).sample
    )


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_family_runs_with_integers(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "THRESHOLDS", 10)
    unet, quantized, rows = calibrated(
        family, Bits(weights=8, activations=8, range_bins=64, range_batch_size=4)
    )
    simulated, integer = network_call(quantized, rows), network_call(lower_for_cpu(quantized), rows)
    assert mean_difference(integer, simulated) <= IMAGE_BOUND * mean_difference(
        simulated, network_call(unet, rows)
    )


def test_weights_that_int8_does_not_hold_are_refused() -> None:
    layer = filled(QuantizedConv2d(nn.Conv2d(4, 3, 1), 8, 8, (4,)), (128,))
    layer.weight_quantizer.set_grid(torch.ones(3, 1), torch.full((3, 1), 60.0))
    with pytest.raises(EdadmError, match="zero points 127 or 128; use backend 'simulated'"):
        CpuConv2d(layer)


@torch.no_grad()
def test_a_copy_of_an_integer_network_computes_the_same(folded: nn.Module, calibration: Calibration) -> None:
    lowered = lower_for_cpu(folded)
    assert torch.equal(copy.deepcopy(lowered)(*calibration).sample, lowered(*calibration).sample)


@torch.no_grad()
def test_the_choice_of_routes_changes_no_bit(
    folded: nn.Module, calibration: Calibration, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = []
    for preferred in (choice.PackedConvolution, choice.FloatConvolution):
        monkeypatch.setattr(
            choice, "_seconds", lambda route, x, bias, kind=preferred: not isinstance(route, kind)
        )
        outputs.append(lower_for_cpu(folded)(*calibration).sample)
    with torch.backends.mkldnn.flags(
        enabled=False
    ):  # as on Apple silicon; what lies between the layers rounds as it always does
        lowered = lower_for_cpu(folded)
        assert all(
            segment.product.packed is None
            for m in lowered.modules()
            if isinstance(m, CpuLayer)
            for segment in m.segments
        )
    outputs.append(lowered(*calibration).sample)
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


def test_a_network_on_another_device_is_refused(architecture: Architecture) -> None:
    with torch.device("meta"):
        unet = build_network(architecture)
    with pytest.raises(EdadmError, match="load it with device 'cpu'"):
        lower_for_cpu(unet)


def test_a_network_of_integers_stays_where_it_is_in_fp32(folded: nn.Module, calibration: Calibration) -> None:
    lowered = lower_for_cpu(folded).to("cpu", torch.float32).to(memory_format=torch.channels_last)
    with torch.no_grad():
        before = lowered(*calibration).sample
        for move in (torch.device("meta"), torch.float16):
            with pytest.raises(
                EdadmError, match="a network of integers on a CPU stays there and in fp32, and cannot go to"
            ):
                lower_for_cpu(folded).to(move)
        assert torch.equal(lowered(*calibration).sample, before)
