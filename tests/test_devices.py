"""Devices by name."""

from __future__ import annotations

import pytest
import torch

import edadm
from edadm.devices import device_named
from edadm.errors import EdadmError


def test_auto_is_a_gpu_where_there_is_one() -> None:
    assert device_named("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device_named(torch.device("cpu")) == device_named("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:77", "xpu", "nonsense", "cpu:x"])
def test_what_is_not_there_is_refused_with_what_is(name: str) -> None:
    with pytest.raises(EdadmError, match=f"this machine has no device '{name}'; it has cpu"):
        device_named(name)


def test_a_network_is_loaded_onto_devices_that_are_there_before_its_file_is_read() -> None:
    with pytest.raises(EdadmError, match="this machine has no device 'cuda:77'"):
        edadm.load("absent.safetensors", device="cuda:77")
