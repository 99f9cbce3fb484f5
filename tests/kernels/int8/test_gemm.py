"""Products of int8 matrices against their meaning, with both kernels; interpreted without a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edadm.kernels.int8 import reference
from edadm.kernels.int8.device import Device
from edadm.kernels.int8.products.convolution import run, triton_convolution
from edadm.kernels.int8.products.launch import choose
from edadm.kernels.int8.products.operands import Operands
from edadm.kernels.int8.tiles import Tiles

from .test_convolution import DEVICE, integers, numbers

KINDS = ("matrix", "descriptor")
SMALL = Tiles(32, 16, 32, 4, 2)
# rows, columns, channels: whole blocks, ragged ends of each, fewer rows than a block, and rows that do not
# begin at a multiple of 16 bytes
SHAPES = [(64, 32, 64), (75, 48, 80), (7, 24, 48), (130, 16, 16), (33, 21, 37)]


def arguments(rows: int, columns: int, channels: int) -> tuple[Tensor, ...]:
    return (
        integers(rows, channels, seed=0),
        integers(columns, channels, seed=1),
        numbers(columns, seed=2) * 1e-4,
        numbers(columns, seed=3),
    )


def product(operands: tuple[Tensor, ...], residual: Tensor | None, dtype: torch.dtype, kind: str) -> Tensor:
    """A product of matrices by a kernel that is known."""
    x, weight, scale, offset = operands
    images = x[:, None, None], weight[:, None, None]
    added = None if residual is None else residual[:, None, None]
    given = Operands.of(*images, scale, offset, added, 1, 0, 0, dtype)
    launch = choose(given.problem, given.layout, Device.of(x.device), SMALL._replace(kind=kind))
    described = kind == "descriptor" and x.shape[1] % 16 == 0 and len(weight) % 16 == 0
    assert launch.kernel == ("gemm_tma" if described else "gemm")
    return run(given, launch).reshape(len(x), -1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_are_those_of_the_meaning_bit_for_bit(shape: tuple[int, int, int], kind: str) -> None:
    x, weight, _, _ = arguments(*shape)
    one, none = torch.ones(len(weight), device=DEVICE), torch.zeros(len(weight), device=DEVICE)
    expected = reference.sums(x[:, None, None], weight[:, None, None]).float().reshape(len(x), -1)
    assert torch.equal(product((x, weight, one, none), None, torch.float32, kind), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scale_offset_and_residual(dtype: torch.dtype, kind: str) -> None:
    x, weight, scale, offset = arguments(75, 48, 80)
    residual = numbers(75, 48, seed=4).to(dtype)
    found = product((x, weight, scale, offset), residual, dtype, kind)
    images = x[:, None, None], weight[:, None, None], scale, offset, residual[:, None, None]
    expected = reference.convolution(*images, 1, 0, 0, dtype).reshape(found.shape)
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(found, expected, rtol=2 * step, atol=2 * step)


@pytest.mark.parametrize("kind", KINDS)
def test_one_program_computes_all_tiles_as_many_do(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operands = arguments(75, 48, 80)
    expected = product(operands, None, torch.float32, kind)
    monkeypatch.setattr("edadm.kernels.int8.products.launch.programs", lambda *_: 1)
    assert torch.equal(product(operands, None, torch.float32, kind), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_padded_product_of_matrices_is_a_convolution(kind: str) -> None:
    x, weight = integers(2, 3, 5, 48, seed=0), integers(32, 1, 1, 48, seed=1)
    one, addend = numbers(32, seed=2), numbers(2, 3, 5, 32, seed=3)
    for padding in (0, 1):
        given = x, weight, one, one, addend if padding == 0 else None, 1, padding, 3, torch.float32
        found = triton_convolution(*given, SMALL._replace(kind=kind))
        torch.testing.assert_close(found, reference.convolution(*given))
