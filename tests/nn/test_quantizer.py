"""The quantizer module."""

from __future__ import annotations

import pytest
import torch

from edadm.nn.quantizer import Quantizer
from edadm.quant.affine import dequantize, quantize
from edadm.quant.streams import Stream


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_an_activation_is_quantized_on_its_grid() -> None:
    quantizer = Quantizer(4)
    quantizer.set_grid(torch.tensor([0.3]), torch.tensor([8.0]))
    x = normal(2, 3, 4, 4)
    expected = dequantize(
        quantize(x, torch.tensor(0.3), torch.tensor(8.0), 4), torch.tensor(0.3), torch.tensor(8.0)
    )
    torch.testing.assert_close(quantizer(x), expected)


def test_segments_of_channels_have_grids_of_their_own() -> None:
    quantizer = Quantizer(4, (3, 5))
    quantizer.set_grid(torch.tensor([0.1, 1.0]), torch.tensor([8.0, 0.0]))
    x = normal(2, 8, 4, 4)
    whole = quantizer(x)
    for part, scale, zero_point in ((slice(0, 3), 0.1, 8.0), (slice(3, 8), 1.0, 0.0)):
        alone = Quantizer(4)
        alone.set_grid(torch.tensor([scale]), torch.tensor([zero_point]))
        assert torch.equal(whole[:, part], alone(x[:, part]))


def test_weights_have_a_grid_per_output_channel_and_segment() -> None:
    quantizer = Quantizer(4, (2, 3), rows=6)
    scale = normal(6, 2).abs() + 0.1
    quantizer.set_grid(scale, torch.full((6, 2), 8.0))
    weight = normal(6, 5, 3, 3, seed=1)
    codes, values = quantizer.codes(weight), quantizer.values(quantizer.codes(weight))
    for row in range(6):
        for segment, part in enumerate((slice(0, 2), slice(2, 5))):
            expected = quantize(weight[row, part], scale[row, segment], torch.tensor(8.0), 4)
            assert torch.equal(codes[row, part], expected)
            torch.testing.assert_close(values[row, part], (expected - 8) * scale[row, segment])


@pytest.mark.parametrize("segments", [(1,), (2, 3)])
def test_values_of_codes_are_what_the_forward_returns(segments: tuple[int, ...]) -> None:
    quantizer = Quantizer(4, segments)
    quantizer.set_grid(torch.linspace(0.2, 0.4, len(segments)), torch.full((len(segments),), 7.0))
    x = normal(2, 5, 3, 3)
    torch.testing.assert_close(quantizer.values(quantizer.codes(x)), quantizer(x))


def test_a_disabled_quantizer_returns_its_input_itself() -> None:
    quantizer, x = Quantizer(4), normal(2, 3)
    quantizer.enabled = False
    assert quantizer(x) is x


def test_a_fresh_quantizer_computes_with_a_unit_step() -> None:
    assert Quantizer(4)(torch.tensor([[-2.0, 1.2, 99.0]])).tolist() == [[0, 1, 15]]


def test_a_grid_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"scale \(3,\) does not fit a quantizer of shape \(1,\)"):
        Quantizer(4).set_grid(torch.ones(3), torch.zeros(3))


def stream(step: int) -> Stream:
    return Stream.of("drop", step=torch.tensor(step, dtype=torch.int32))


def test_dropping_leaves_about_the_given_share_of_elements_unquantized() -> None:
    quantizer, x = Quantizer(2), normal(100, 100)
    quantizer.set_grid(torch.tensor([0.5]), torch.tensor([2.0]))
    exact = quantizer(x)
    quantizer.drop(0.3, stream(0))
    mixed = quantizer(x)
    spared = mixed == x
    assert 0.28 < spared.float().mean().item() < 0.32
    assert torch.equal(mixed[~spared], exact[~spared])
    quantizer.drop(0.0, None)
    assert torch.equal(quantizer(x), exact)


def test_dropping_draws_from_the_stream_alone_and_differs_from_step_to_step() -> None:
    quantizer, x = Quantizer(2), normal(10, 10)
    results = []
    for step in (0, 0, 1):
        quantizer.drop(0.5, stream(step))
        results.append(quantizer(x))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


@pytest.mark.parametrize("zero_points", [[8.0, 8.0], [8.0, 0.0]])
def test_a_quantizer_moves_to_another_device_as_a_whole(zero_points: list[float]) -> None:
    quantizer = Quantizer(4, (2, 3))
    quantizer.set_grid(torch.tensor([0.1, 0.2]), torch.tensor(zero_points))
    assert quantizer.to("meta")(torch.empty(2, 5, device="meta")).is_meta


def test_no_cast_to_half_precision_reaches_a_grid() -> None:
    quantizer = Quantizer(8, (2, 3))
    quantizer.set_grid(torch.tensor([1 / 3, 1 / 7]), torch.tensor([128.0, 127.0]))
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    expected = quantizer(x.bfloat16().float()).bfloat16()
    assert torch.equal(quantizer.to(torch.bfloat16)(x.bfloat16()), expected)
    assert quantizer.scale.tolist() == torch.tensor([1 / 3, 1 / 7]).tolist()
    assert quantizer.double().scale.dtype == torch.float64
