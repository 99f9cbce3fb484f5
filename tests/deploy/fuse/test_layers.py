"""Layers that compute with integers, against exact arithmetic on the same codes."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edadm.deploy.backends.cuda_int8 import integer_layer
from edadm.deploy.fuse import layers
from edadm.deploy.fuse.layers import IntegerGatheredConv2d
from edadm.errors import EdadmError
from edadm.kernels.int8.products.convolution import int8_convolution
from edadm.nn.layers import QuantizedConv2d, QuantizedLayer, QuantizedLinear

# a float layer, the shape of its input, sizes of its segments, zero points of the input at 8 bits
LAYERS = {
    "3x3": (nn.Conv2d(24, 20, 3, padding=1), (2, 24, 5, 7), (24,), (128,)),
    "stride 2": (nn.Conv2d(5, 7, 3, stride=2), (3, 5, 9, 9), (5,), (91,)),
    "1x1 of two segments": (nn.Conv2d(24, 16, 1), (2, 24, 4, 4), (9, 15), (128, 3)),
    "without bias": (nn.Conv2d(2, 1, 3, padding=1, bias=False), (1, 2, 4, 4), (2,), (0,)),
    "linear": (nn.Linear(24, 11), (2, 5, 24), (24,), (200,)),
    "values and gates": (nn.Linear(24, 32), (2, 5, 24), (24,), (128,)),
    "back": (nn.Linear(16, 24), (2, 5, 16), (16,), (120,)),
}


def filled(name: str, weight_bits: int, input_bits: int) -> tuple[QuantizedLayer, Tensor]:
    """A layer with random codes, both ends of the grid in every row, and an input some of which lies beyond its grid."""
    float_layer, shape, sizes, zero_points = LAYERS[name]
    generator = torch.Generator().manual_seed(0)
    kind = QuantizedLinear if isinstance(float_layer, nn.Linear) else QuantizedConv2d
    layer: QuantizedLayer = kind(float_layer, weight_bits, input_bits, sizes)
    grid, rows, segments = layer.weight_quantizer, layer.weight.shape[0], len(sizes)
    middle = 2 ** (weight_bits - 1)
    zero_point = middle - torch.randint(
        0, 2, (rows, segments), generator=generator
    )  # 127 makes 128 of code 255
    grid.set_grid(2.0 ** torch.randint(-9, -4, (rows, segments), generator=generator), zero_point.float())
    codes = torch.randint(0, 2**weight_bits, layer.weight.shape, generator=generator, dtype=torch.uint8)
    codes[:, 0], codes[:, -1] = 0, 2**weight_bits - 1
    layer.set_codes(codes)
    assert layer.input_quantizer is not None
    ends = [min(z, 2**input_bits - 1) for z in zero_points]
    layer.input_quantizer.set_grid(torch.full((segments,), 2.0**-5), torch.tensor(ends).float())
    return layer, torch.randn(shape, generator=generator) * 6


def test_integers_that_off_loading_took_elsewhere_are_missed_in_a_sentence() -> None:
    layer, x = filled("3x3", 4, 8)
    with pytest.raises(EdadmError, match="lies on 'meta' and was given numbers on 'cpu'"):
        integer_layer(layer).to("meta")(x)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bits", [(8, 8), (4, 8), (4, 6), (8, 6)])
@torch.no_grad()
def test_an_integer_layer_is_the_simulated_one_in_exact_arithmetic(name: str, bits: tuple[int, int]) -> None:
    layer, x = filled(name, *bits)
    output = integer_layer(layer)(x)
    exact = layer.double()(x.double())
    assert isinstance(integer_layer(layer), IntegerGatheredConv2d) == (
        name in ("stride 2", "without bias")
    )  # of few channels
    assert output.shape == exact.shape
    torch.testing.assert_close(output.double(), exact, rtol=1e-6, atol=1e-6 * exact.abs().max().item())


@torch.no_grad()
def test_zeros_padded_before_a_convolution_are_zeros_of_its_grid() -> None:
    layer, x = filled("stride 2", 8, 8)
    padded = F.pad(x, (0, 1, 0, 1))  # diffusers' down-sampling without padding of its own
    exact = layer.double()(padded.double())
    torch.testing.assert_close(
        integer_layer(layer.float())(padded).double(), exact, rtol=1e-6, atol=1e-6 * exact.abs().max().item()
    )


@torch.no_grad()
def test_four_bit_weights_lie_packed_in_memory_and_mean_the_same() -> None:
    layer, x = filled("3x3", 4, 8)
    packed, wide = integer_layer(layer), integer_layer(layer, keep_packed=False)
    assert torch.equal(packed(x), wide(x))
    (one,), (other,) = packed.segments, wide.segments
    assert torch.equal(one.integers(), other.integers())
    assert one.codes.numel() * 2 == other.weight.numel()
    assert "weight" not in dict(one.named_buffers())


def test_scales_stay_fp32_when_the_network_is_cast() -> None:
    layer = integer_layer(filled("3x3", 8, 8)[0])
    before = {name: tensor.clone() for name, tensor in layer.named_buffers()}
    layer.to(torch.bfloat16)
    for name, tensor in layer.named_buffers():
        assert tensor.dtype == before[name].dtype, name
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("bits", [8, 4])
def test_weights_keep_their_layout_when_the_network_is_laid_out_channels_last(bits: int) -> None:
    layer = integer_layer(filled("3x3", bits, 8)[0])
    before = {name: tensor.clone() for name, tensor in layer.named_buffers()}
    layer.to(memory_format=torch.channels_last)
    for name, tensor in layer.named_buffers():
        assert tensor.is_contiguous(), name
        assert torch.equal(tensor, before[name]), name


@torch.no_grad()
def test_rows_of_a_linear_layer_are_a_batch_that_can_be_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, x = filled("linear", 8, 8)
    shapes = []
    monkeypatch.setattr(
        layers,
        "int8_convolution",
        lambda x, *others: shapes.append(tuple(x.shape)) or int8_convolution(x, *others),
    )
    assert integer_layer(layer)(x).shape == (2, 5, 11)
    assert shapes == [(10, 1, 1, 24)]


@torch.no_grad()
def test_half_precision_input_gives_its_own_type_and_nearly_the_same() -> None:
    layer, x = filled("3x3", 8, 8)
    exact = layer(x.bfloat16().float())
    output = integer_layer(layer)(x.bfloat16())
    assert output.dtype == torch.bfloat16
    torch.testing.assert_close(output.float(), exact, rtol=2**-7, atol=1e-5 * exact.abs().max().item())


COMPILED = """
import torch
from edadm.deploy.fuse.attention import IntegerFeedForward
from tests.deploy.fuse.test_layers import filled, integer_layer

def backend(graph, _):
    calls.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
    return graph.forward

for name in ("3x3", "1x1 of two segments", "linear"):
    layer, x = filled(name, 4, 8)
    lowered, calls = integer_layer(layer), []
    with torch.no_grad():
        assert torch.equal(torch.compile(lowered, backend=backend, fullgraph=True)(x), lowered(x)), name
    assert sum("int8_convolution" in call for call in calls) == len(lowered.segments), calls

lowered, calls = IntegerFeedForward(*(integer_layer(filled(name, 4, 8)[0]) for name in ("values and gates", "back"))), []
with torch.no_grad():
    assert torch.equal(torch.compile(lowered, backend=backend, fullgraph=True)(x), lowered(x))
assert sum("int8_geglu" in call for call in calls) == 1, calls
"""


def test_the_compiler_sees_one_graph_with_the_operation_in_it() -> None:
    """In a process of its own: the compiler does not see through the type checks that tests switch on."""
    run = subprocess.run(
        [sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
