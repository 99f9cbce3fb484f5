"""The kernel in Gluon, which nothing interprets; `tests/test_gpu.py` compares its sums."""

from __future__ import annotations

import torch

from edadm.kernels.int8.products.conv_wgmma import layout_of


def test_blocks_lie_in_shared_memory_as_tensor_cores_want_them() -> None:
    layout = layout_of((1, 4, 32, 128), torch.int8)
    assert (layout.swizzle_byte_width, layout.element_bitwidth, layout.rank) == (128, 8, 4)
    assert layout_of((128, 16), torch.bfloat16).swizzle_byte_width == 32
