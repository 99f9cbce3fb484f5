"""Devices by name."""

from __future__ import annotations

import pytest
import torch

import edadm
from edadm.devices.named import device_named
from edadm.errors import EdadmError


def test_auto_is_a_gpu_where_there_is_one() -> None:
    assert device_named("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert device_named(torch.device("cpu")) == device_named("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["cuda:77", "xpu", "hpu", "meta", "nonsense", "cpu:x"])
def test_what_is_not_there_is_refused_with_what_is(name: str) -> None:
    with pytest.raises(EdadmError, match=f"this machine has no device '{name}'; it has cpu"):
        device_named(name)


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
def test_a_device_that_is_there_and_takes_no_work_is_not_called_absent(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def zeros(*size: int, device: torch.device) -> None:
        raise RuntimeError("all devices are busy or unavailable\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(torch, "zeros", zeros)
    for function, value in {"is_available": True, "device_count": 1}.items():
        monkeypatch.setattr(torch.cuda, function, lambda value=value: value)
    called = "cuda" if name == "auto" else name
    with pytest.raises(
        EdadmError, match=f"^the device '{called}' cannot be used: all devices are busy or unavailable$"
    ):
        device_named(name)
    with pytest.raises(EdadmError, match=r"^this machine has no device 'cuda:1'; it has cpu, cuda:0$"):
        device_named("cuda:1")


@pytest.mark.parametrize("name", ["mps", "mps:0", torch.device("mps")])
def test_gpus_without_64_bit_numbers_are_refused_by_name(name: torch.device | str) -> None:
    with pytest.raises(EdadmError, match=r"64-bit numbers, which Apple's GPUs .* use the device 'cpu'"):
        device_named(name)


@pytest.mark.parametrize(
    ("name", "current"), [("cuda:1", [torch.device("cuda:1")]), ("cuda", []), ("cpu", [])]
)
def test_kernels_of_a_gpu_with_a_number_are_launched_there(
    name: str, current: list[torch.device], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch, "zeros", lambda *size, device: torch.ones(1))
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert device_named(name) == torch.device(name)
    assert chosen == current


def test_a_network_is_loaded_onto_devices_that_are_there_before_its_file_is_read() -> None:
    with pytest.raises(EdadmError, match="this machine has no device 'cuda:77'"):
        edadm.load("absent.safetensors", device="cuda:77")
