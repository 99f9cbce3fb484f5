"""4-bit codes, two per byte."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from edadm.kernels.packing import pack4, unpack4

shapes = st.lists(st.integers(1, 7), min_size=1, max_size=4).map(tuple)


@given(shapes, st.integers(0, 2**31))
def test_unpacking_undoes_packing_for_ragged_shapes(shape: tuple[int, ...], seed: int) -> None:
    codes = torch.randint(16, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    packed = pack4(codes)
    assert packed.numel() == -(-codes.numel() // 2)
    assert torch.equal(unpack4(packed, shape), codes)


def test_the_earlier_code_lies_in_the_low_half_and_an_odd_end_is_padded_with_zero() -> None:
    assert pack4(torch.tensor([1, 2, 15], dtype=torch.uint8)).tolist() == [0x21, 0x0F]


def test_row_major_order_holds_whatever_the_memory_format() -> None:
    codes = torch.arange(16, dtype=torch.uint8).reshape(1, 4, 2, 2)
    assert torch.equal(pack4(codes), pack4(codes.to(memory_format=torch.channels_last)))
