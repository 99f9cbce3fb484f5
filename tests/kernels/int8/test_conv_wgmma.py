"""The kernel in Gluon, which nothing interprets: where it is not for, another takes over. `tests/test_gpu.py` compares its sums."""

from __future__ import annotations

import pytest
import torch

from edadm.kernels.int8 import reference
from edadm.kernels.int8.products import convolution as dispatching
from edadm.kernels.int8.products.conv_wgmma import layout_of, triton_pipelined
from edadm.kernels.int8.products.convolution import triton_convolution
from edadm.kernels.int8.tiles import Tiles

from .test_convolution import DEVICE, integers

SMALL = Tiles(64, 32, 32, 4, 3, kind="pipelined")
# stride, padding, number in the padding, side: what the kernel is asked about, and what it is not
CASES = {
    "asked": (1, 1, 0, 3),
    "a linear layer": (1, 0, -7, 1),
    "stride": (2, 1, 0, 3),
    "padding": (1, 1, -5, 3),
    "smaller output": (1, 0, 0, 3),
}


@pytest.mark.parametrize("case", CASES)
def test_it_is_asked_where_it_may_fit_and_others_do_the_rest(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stride, padding, zero, side = CASES[case]
    x, weight = integers(2, 8, 8, 32, seed=0), integers(32, side, side, 32, seed=1)
    one, none, asked = torch.ones(32, device=DEVICE), torch.zeros(32, device=DEVICE), []
    monkeypatch.setattr(dispatching, "triton_pipelined", lambda *a: asked.append(a) or triton_pipelined(*a))
    found = triton_convolution(x, weight, one, none, None, stride, padding, zero, torch.float32, SMALL)
    assert torch.equal(found, reference.sums(x, weight, stride, padding, zero).float())
    assert bool(asked) == (case in ("asked", "a linear layer"))


def test_a_cpu_has_no_such_instructions() -> None:
    x, weight, one = integers(2, 8, 8, 32, seed=0).cpu(), integers(32, 3, 3, 32, seed=1).cpu(), torch.ones(32)
    assert triton_pipelined(x, weight, one, one, None, torch.float32, SMALL) is None


def test_blocks_lie_in_shared_memory_as_tensor_cores_want_them() -> None:
    layout = layout_of((1, 4, 32, 128), torch.int8)
    assert (layout.swizzle_byte_width, layout.element_bitwidth, layout.rank) == (128, 8, 4)
    assert layout_of((128, 16), torch.bfloat16).swizzle_byte_width == 32
