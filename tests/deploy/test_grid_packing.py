"""All grids of a network in four tensors."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from edadm.deploy.grid_packing import (
    ACTIVATION_SCALES,
    WEIGHT_ZERO_POINTS,
    compact,
    expand,
    pack_bits,
    unpack_bits,
)
from edadm.nn.quantizer import Quantizer

QUANTIZERS = {
    "b.weight_quantizer": Quantizer(4, (2, 3), rows=3),
    "a.weight_quantizer": Quantizer(8, rows=5),
    "a.input_quantizer": Quantizer(8, (2, 3)),
    "b.input_quantizer": Quantizer(6),
}


def grids(zero_points: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Random scales; zero points of weights off the middle at random."""
    generator, tensors = torch.Generator().manual_seed(0), {}
    for name, quantizer in QUANTIZERS.items():
        shape = quantizer.scale.shape
        tensors[f"{name}.scale"] = torch.rand(shape, generator=generator) + 0.1
        middle = 2 ** (quantizer.bits - 1)
        points = (
            middle - torch.randint(2, shape, generator=generator)
            if quantizer.rows
            else torch.randint(64, shape, generator=generator)
        )
        tensors[f"{name}.zero_point"] = points.to(torch.uint8)
    return tensors | (zero_points or {})


@given(st.lists(st.integers(0, 1), max_size=40))
def test_bits_come_back(values: list[int]) -> None:
    bits = torch.tensor(values, dtype=torch.uint8)
    assert pack_bits(bits).tolist() == list(
        sum(bit << i for i, bit in enumerate(values)).to_bytes(-(-len(values) // 8), "little")
    )
    assert unpack_bits(pack_bits(bits), len(values)).tolist() == values


@pytest.mark.parametrize(
    "odd", [{}, {"b.weight_quantizer.zero_point": torch.tensor([[7, 8], [0, 8], [15, 7]], dtype=torch.uint8)}]
)
def test_grids_come_back_exactly_also_where_zero_is_far_from_the_middle(odd: dict[str, Tensor]) -> None:
    before = grids(odd)
    packed = compact(before, QUANTIZERS)
    assert packed[WEIGHT_ZERO_POINTS].numel() == 2  # 11 grids
    assert packed.keys() >= odd.keys()
    assert len(packed) == 4 + len(odd)
    after = expand(packed, QUANTIZERS)
    assert after.keys() == before.keys()
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
        assert after[name].dtype == tensor.dtype


def test_grids_of_another_network_are_refused() -> None:
    packed = compact(grids(), QUANTIZERS)
    with pytest.raises(
        ValueError,
        match=rf"'{ACTIVATION_SCALES}' has \(3,\) torch.float32, the network's grids need \(2,\) torch.float32",
    ):
        expand(
            packed, {name: quantizer for name, quantizer in QUANTIZERS.items() if name != "b.input_quantizer"}
        )
    with pytest.raises(KeyError, match=WEIGHT_ZERO_POINTS):
        expand({name: tensor for name, tensor in packed.items() if name != WEIGHT_ZERO_POINTS}, QUANTIZERS)
