"""Products of int8 matrices against their plain meaning, with both kernels; interpreted on the CPU where there is no GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edadm.kernels.int8 import reference
from edadm.kernels.int8.products import gemm as module
from edadm.kernels.int8.products.convolution import triton_convolution
from edadm.kernels.int8.products.gemm import describable, programs, stages_beside, triton_matrix
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_are_those_of_the_meaning_bit_for_bit(shape: tuple[int, int, int], kind: str) -> None:
    x, weight, _, _ = arguments(*shape)
    one, none = torch.ones(len(weight), device=DEVICE), torch.zeros(len(weight), device=DEVICE)
    expected = reference.sums(x[:, None, None], weight[:, None, None]).float().reshape(len(x), -1)
    assert torch.equal(
        triton_matrix(x, weight, one, none, None, torch.float32, SMALL._replace(kind=kind)), expected
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scale_offset_and_addend(dtype: torch.dtype, kind: str) -> None:
    x, weight, scale, offset = arguments(75, 48, 80)
    addend = numbers(75, 48, seed=4).to(dtype)
    found = triton_matrix(x, weight, scale, offset, addend, dtype, SMALL._replace(kind=kind))
    images = x[:, None, None], weight[:, None, None], scale, offset, addend[:, None, None]
    expected = reference.convolution(*images, 1, 0, 0, dtype).reshape(found.shape)
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(found, expected, rtol=2 * step, atol=2 * step)


@pytest.mark.parametrize("kind", KINDS)
def test_one_program_computes_all_blocks_as_many_do(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    operands = arguments(75, 48, 80)
    expected = triton_matrix(*operands, None, torch.float32, SMALL._replace(kind=kind))
    monkeypatch.setattr(module, "programs", lambda *_: 1)
    assert torch.equal(triton_matrix(*operands, None, torch.float32, SMALL._replace(kind=kind)), expected)


def test_programs_are_as_many_as_run_at_once_and_no_more_than_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_processors", lambda _: 132)
    here = torch.device("cpu")
    assert programs(Tiles(128, 256, 128, 8, 3), 10_000, here) == 132
    assert programs(Tiles(128, 128, 128, 4, 3), 10_000, here) == 264
    assert programs(Tiles(128, 128, 128, 4, 3), 5, here) == 5


def test_descriptors_need_rows_that_begin_at_multiples_of_16_and_a_hopper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fits = integers(4, 64, seed=0)
    assert describable(fits, fits.float())
    assert not describable(fits, integers(4, 40, seed=0))
    assert describable(fits.float()[:, :48].contiguous())
    assert not describable(fits.float()[:, :20].contiguous())
    assert not describable(integers(65 * 64, seed=0)[8:-56].reshape(64, 64))
    monkeypatch.setattr(module, "_reads_blocks", lambda _: False)
    assert not describable(fits)


@pytest.mark.parametrize("refused", ["by the device", "by a row of 37 bytes"])
def test_pointers_take_over_where_descriptors_do_not_fit(
    refused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    operands = arguments(33, 32, 37 if "row" in refused else 48)
    expected = triton_matrix(*operands, None, torch.float32, SMALL._replace(kind="matrix"))
    if "device" in refused:
        monkeypatch.setattr(module, "_reads_blocks", lambda _: False)
    monkeypatch.setattr(module, "_by_descriptors", None)
    assert torch.equal(
        triton_matrix(*operands, None, torch.float32, SMALL._replace(kind="descriptor")), expected
    )


@pytest.mark.parametrize("kind", KINDS)
def test_convolutions_take_their_kernel_from_the_tiles(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = integers(2, 3, 5, 48, seed=0), integers(32, 1, 1, 48, seed=1)
    one, addend = numbers(32, seed=2), numbers(2, 3, 5, 32, seed=3)
    calls = []
    monkeypatch.setattr(
        "edadm.kernels.int8.products.convolution.triton_matrix",
        lambda *a: calls.append(a[-1].kind) or triton_matrix(*a),
    )
    for padding in (0, 1):
        added = addend if padding == 0 else None
        found = triton_convolution(
            x, weight, one, one, added, 1, padding, 3, torch.float32, SMALL._replace(kind=kind)
        )
        torch.testing.assert_close(
            found, reference.convolution(x, weight, one, one, added, 1, padding, 3, torch.float32)
        )
    assert calls == [kind]  # a padded one is no product of the matrices that are there


def test_steps_that_are_fetched_ahead_leave_room_for_the_result() -> None:
    wide, narrow = Tiles(256, 128, 128, 8, 3), Tiles(64, 64, 128, 4, 4)
    assert [stages_beside(wide, dtype) for dtype in (torch.bfloat16, torch.float32)] == [3, 2]
    assert [stages_beside(narrow, dtype) for dtype in (torch.bfloat16, torch.float32)] == [4, 4]
