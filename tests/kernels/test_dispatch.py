"""Operands that a kernel would read as something else are refused."""

from __future__ import annotations

import pytest
import torch

from edadm.errors import EdadmError
from edadm.kernels.dispatch import has_kernels, refuse_other_types, refuse_scattered


def test_operands_of_one_device_and_type_pass() -> None:
    here = torch.ones(2)
    refuse_scattered(here, here, None)
    refuse_other_types(torch.float32, here, None)
    assert not has_kernels(here, here, None)


def test_operands_elsewhere_are_refused_by_both_places() -> None:
    here, nowhere = torch.ones(2), torch.ones(2, device="meta")
    for check in (refuse_scattered, has_kernels):
        with pytest.raises(
            EdadmError, match="part of this network lies on 'meta' and was given numbers on 'cpu'"
        ):
            check(here, here, nowhere)


def test_operands_of_other_types_are_refused_by_both_types() -> None:
    with pytest.raises(EdadmError, match=r"computed with torch\.int8, and were given torch\.float32"):
        refuse_other_types(torch.int8, torch.ones(2, dtype=torch.int8), torch.ones(2))
