"""Which numbers a checkpoint may hold."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edadm.networks.layouts.numbers import as_fp32
from edadm.networks.weights import CheckpointError

FILE = Path("model.ckpt")


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.float8_e5m2],
)
def test_floating_point_numbers_become_fp32_without_change(dtype: torch.dtype) -> None:
    values = torch.tensor([[0.5, -1.75], [0.0, 448.0]])
    (widened,) = as_fp32({"a": values.to(dtype)}, FILE).values()
    assert widened.dtype == torch.float32
    assert torch.equal(widened, values.to(dtype).float())


def test_eight_bits_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    as_fp32({"a": torch.ones(2).to(torch.float8_e5m2), "b": torch.ones(2)}, FILE)
    assert "1 tensors are of 8 bits (torch.float8_e5m2)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.ones(2, dtype=torch.complex64), "complex64"),
        (torch.ones(2, dtype=torch.int8), "int8"),
        (torch.ones(2, dtype=torch.int64), "int64"),
        (torch.ones(2, dtype=torch.bool), "bool"),
        (torch.ones(2, 2).to_sparse(), "sparse"),
    ],
)
def test_other_numbers_are_refused(tensor: torch.Tensor, kind: str) -> None:
    with pytest.raises(CheckpointError, match=rf"model\.ckpt: 'b' holds {kind} numbers; weights must be"):
        as_fp32({"a": torch.ones(1), "b": tensor}, FILE)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e5m2]
)
def test_numbers_that_are_not_finite_are_counted_and_refused(dtype: torch.dtype) -> None:
    values = torch.tensor([1.0, torch.nan, torch.inf, -torch.inf]).to(dtype)
    with pytest.raises(CheckpointError, match=r"3 of 4 numbers in 'a' are not finite"):
        as_fp32({"a": values}, FILE)


def test_numbers_beyond_fp32_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"1 of 2 numbers in 'a' are too large for fp32"):
        as_fp32({"a": torch.tensor([1.0, 1e200], dtype=torch.float64)}, FILE)


@pytest.mark.parametrize(
    "name",
    [
        "a.scale_weight",
        "a.comfy_quant",
        "scaled_fp8",
        "a.weight.absmax",
        "a.weight.quant_state.bitsandbytes__nf4",
    ],
)
def test_another_tools_quantized_file_is_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="that another tool has quantized"):
        as_fp32({"a.weight": torch.ones(1), name: torch.ones(1)}, FILE)
