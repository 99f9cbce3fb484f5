"""What a file's weights do where pairs of products are added in int16, as `vpmaddubsw` does it."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edadm.config.schema import Bits
from edadm.deploy.export.onnx import TARGETS
from edadm.deploy.export.onnx_graph import _ExportedLayer, _Segment, export_graph
from edadm.deploy.export.onnx_weights import Form, saturates, stored_weight
from edadm.deploy.grids import quantized_copy
from edadm.nn.insert import quantized_layers
from edadm.passes.ranges import set_ranges

from ...conftest import as_rows


def saturating_sums(codes: np.ndarray, weight: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Sums of products of uint8 codes (k,) and int8 weights (rows, k), pairs of neighbours in `order` cut off at int16's ends."""
    products = codes[order].astype(np.int64) * weight[:, order].astype(np.int64)
    pairs = np.pad(products, ((0, 0), (0, products.shape[1] % 2))).reshape(len(weight), -1, 2).sum(2)
    return pairs.clip(-(2**15), 2**15 - 1).sum(1)


def worst_codes(weight: np.ndarray, largest: int) -> list[np.ndarray]:
    """Codes under which the sums of each row are as large, or as small, as they can be; and random ones."""
    extremes = [np.where(row > 0, up, largest - up) for row in weight for up in (largest, 0)]
    return [*extremes, np.random.default_rng(0).integers(0, largest + 1, weight.shape[1])]


def exact_under_saturation(weight: np.ndarray, largest: int) -> bool:
    """Whether sums are exact for the worst codes, whatever the order in which a runtime puts the weights of a row."""
    orders = [
        np.arange(weight.shape[1]),
        *(np.argsort(row) for row in weight),
        np.random.default_rng(1).permutation(weight.shape[1]),
    ]
    cases = ((codes, order) for codes in worst_codes(weight, largest) for order in orders)
    return all(
        np.array_equal(saturating_sums(codes, weight, order), weight.astype(np.int64) @ codes)
        for codes, order in cases
    )


def weight_with(largest: int, bits: int = 8) -> tuple[Tensor, Tensor]:
    """Random integers of five rows, negated rows among them, one that stands for +128 as they do."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randint(-largest, largest + 1, (5, 3, 3, 3), generator=generator).to(torch.int8)
    weight[1].flatten()[4] = -(2 ** (bits - 1))
    scale = torch.rand(5, generator=generator) + 0.5
    scale[1:3] *= -1
    return weight, scale


@pytest.mark.parametrize("form", get_args(Form))
def test_every_form_stands_for_the_weight_with_positive_scales(form: Form) -> None:
    weight, scale = weight_with(127)
    stored = stored_weight(weight, scale, 255, form)
    assert (stored.scale > 0).all()
    sign = torch.ones(5) if stored.sign is None else stored.sign
    zero_point = 0 if stored.zero_point is None else stored.zero_point.float().reshape(-1, 1, 1, 1)
    sums = sum(part.float() for part in stored.parts) - zero_point
    found = sums * (stored.scale * sign).reshape(-1, 1, 1, 1)
    expected = weight * scale.reshape(-1, 1, 1, 1)
    if form == "seven":
        assert (
            (found - expected).abs().amax((1, 2, 3)).le(1.001 * scale.abs()).all()
        )  # a half of a step twice as wide
    else:
        assert torch.equal(found, expected)
    assert {part.dtype for part in stored.parts} == {torch.uint8 if form == "unsigned" else torch.int8}
    assert len(stored.parts) == (2 if form == "exact" else 1)


def test_linear_layers_have_no_unsigned_form() -> None:
    weight, scale = weight_with(127)
    stored = stored_weight(weight.flatten(1), scale, 255, "unsigned")
    assert stored.zero_point is None
    assert len(stored.parts) == 2


@pytest.mark.parametrize("largest_code", [255, 127, 63])
def test_exact_and_7_bit_weights_survive_int16_and_whole_ones_do_not(largest_code: int) -> None:
    weight, scale = weight_with(127)
    for form in ("exact", "seven"):
        for part in stored_weight(weight, scale, largest_code, form).parts:
            assert exact_under_saturation(part.flatten(1).numpy(), largest_code), form
    whole = stored_weight(weight, scale, largest_code, "full").parts
    assert exact_under_saturation(whole[0].flatten(1).numpy(), largest_code) == (largest_code < 128)


@pytest.mark.parametrize(
    ("pair", "unsafe"), [((64, 64), False), ((100, 28), False), ((100, 29), True), ((-100, -28), False)]
)
def test_a_weight_is_divided_where_two_of_a_row_leave_int16(pair: tuple[int, int], unsafe: bool) -> None:
    values = torch.tensor([[pair[0], 0, -3, pair[1]], [1, 2, 3, 4]], dtype=torch.int16)
    assert saturates(values, 255) == unsafe
    assert saturates(-values - 1, 255) == (unsafe or sum(pair) > 126)
    assert exact_under_saturation(values.numpy(), 255) != unsafe
    assert len(stored_weight(values.to(torch.int8), torch.ones(2), 255, "exact").parts) == 1 + unsafe
    assert not saturates(values, 0)  # nothing is multiplied in bytes


def test_weights_of_4_bits_that_reach_8_have_negated_rows_in_int4_alone() -> None:
    weight = torch.tensor([[8, -7, 3], [7, -8, 2]], dtype=torch.int8)
    narrow = stored_weight(weight, torch.ones(2), 255, "exact", int4=True)
    assert narrow.parts[0].tolist() == [[-8, 7, -3], [7, -8, 2]]
    assert narrow.sign is not None
    assert narrow.sign.tolist() == [-1, 1]
    assert stored_weight(weight, torch.ones(2), 255, "exact").sign is None


@pytest.fixture
def w8a8(float_unet: nn.Module, calibration: tuple[Tensor, Tensor]) -> nn.Module:
    bits = Bits(weights=8, activations=8, softmax=8, range_batch_size=8, range_bins=64)
    unet = quantized_copy(float_unet, bits)
    set_ranges(unet, as_rows(calibration), bits)
    for layer in quantized_layers(unet).values():
        layer.set_codes(layer.nearest_codes())
    return unet.eval()


def segments_of(graph: nn.Module) -> list[_Segment]:
    return [
        segment
        for module in graph.modules()
        if isinstance(module, _ExportedLayer)
        for segment in module.segments
    ]


def test_no_weight_of_the_default_file_can_leave_int16(
    w8a8: nn.Module, gridded: Callable[[], nn.Module]
) -> None:
    four = gridded()
    for layer in quantized_layers(four).values():
        layer.set_codes(layer.nearest_codes())
    for unet, several in ((w8a8, True), (four, False)):
        segments = [segment for segment in segments_of(export_graph(unet)) if segment.pair is not None]
        divided = [segment for segment in segments if len(segment.parts) == 2]
        assert (
            len(divided) > len(segments) / 2 if several else 0 < len(divided) < len(segments) / 4
        )  # 8-bit layers of the latter
        for part in (part for segment in segments for part in segment.parts):
            assert exact_under_saturation(part.flatten(1)[:4, :64].numpy(), 255)
            assert not saturates(part.to(torch.int16), 255)
    whole = segments_of(export_graph(w8a8, TARGETS["onnx_vnni"]))
    assert any(saturates(segment.parts[0].to(torch.int16), 255) for segment in whole)
    for target in TARGETS.values():
        assert all((segment.scale > 0).all() for segment in segments_of(export_graph(w8a8, target)))
