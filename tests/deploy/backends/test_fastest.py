"""The backend that `auto` means."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import edadm
from edadm.config.backends import BACKENDS
from edadm.config.schema import Bits
from edadm.deploy.backends import fastest
from edadm.deploy.checkpoint import save_quantized
from edadm.networks.settings.architecture import Architecture
from edadm.nn.insert import quantized_layers

SECONDS = {"simulated": 3.0, "onednn": 2.0, "toy": 1.0}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_backend: str) -> Path:
    """A place for measurements; a backend is registered that predicts half of what it should; OpenVINO is not there."""
    monkeypatch.setenv("EDADM_CACHE", str(tmp_path))
    monkeypatch.delitem(BACKENDS, "openvino")
    return tmp_path


@pytest.fixture
def folded(gridded: Callable[[], nn.Module]) -> nn.Module:
    unet = gridded()
    for layer in quantized_layers(unet).values():
        layer.set_codes(layer.nearest_codes())
    return unet.eval()


def clocked(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> list[str]:
    """The names of the backends whose calls are timed from now on, which take so many seconds."""
    timed, lower = [], fastest.lower

    def named(unet: Any, backend: str) -> Any:
        lowered = lower(unet, backend=backend)
        lowered.backend_name = backend
        return lowered

    def of(network: Any, rows: Any) -> float:
        timed.append(getattr(network, "backend_name", "simulated"))
        assert len(rows) == 2
        return seconds[timed[-1]]

    monkeypatch.setattr(fastest, "lower", named)
    monkeypatch.setattr(fastest, "_seconds", of)
    return timed


def test_the_fastest_exact_backend_is_measured_once_and_noted(
    folded: nn.Module, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed = clocked(monkeypatch, SECONDS)
    assert fastest.meant("auto", folded, batch=2) == "onednn"
    assert set(timed) == {"simulated", "onednn"}  # the toy is faster, and computes something else
    (file,) = (place / "fastest").iterdir()
    noted = json.loads(file.read_text())
    assert (noted["backend"], noted["seconds"]) == ("onednn", {"simulated": 3.0, "onednn": 2.0})
    assert noted["difference_to_simulated"]["toy"] > 0.3
    assert noted["difference_to_simulated"]["onednn"] < fastest.TOLERANCE
    timed.clear()
    SLOWER = SECONDS | {"onednn": 9.0}
    timed = clocked(monkeypatch, SLOWER)
    assert fastest.meant("auto", folded, batch=2) == "onednn"
    assert timed == []
    file.unlink()
    assert fastest.meant("auto", folded, batch=2) == "simulated"


def test_another_name_means_itself_and_half_precision_simulation(folded: nn.Module, place: Path) -> None:
    assert fastest.meant("integer", folded) == "integer"
    assert fastest.meant("auto", folded, torch.bfloat16) == "simulated"
    assert fastest.meant("auto", folded.to("meta")) == "simulated"
    assert list(place.iterdir()) == []


def test_a_measurement_holds_for_its_threads_batch_and_network(
    folded: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["simulated", "onednn"]
    keys = [fastest._key(folded, names, batch) for batch in (1, 2)]
    keys.append(fastest._key(folded, names[:1], 1))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    keys.append(fastest._key(folded, names, 1))
    monkeypatch.undo()
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    keys.append(fastest._key(folded, names, 1))
    monkeypatch.undo()
    next(iter(quantized_layers(folded).values())).input_quantizer.bits = 5
    keys.append(fastest._key(folded, names, 1))
    assert len(set(keys)) == len(keys)


def test_a_network_is_loaded_with_it_and_says_which_it_is(
    folded: nn.Module,
    architecture: Architecture,
    bits: Bits,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    save_quantized(folded, tmp_path / "quantized.safetensors", architecture, bits, {})
    clocked(monkeypatch, SECONDS)
    unet = edadm.load(tmp_path / "quantized.safetensors", backend="auto", batch_size=2)
    assert unet.backend == "onednn"
    given = torch.randn(1, 3, 8, 8), torch.tensor([9])
    expected = edadm.load(tmp_path / "quantized.safetensors", backend="onednn")(*given).sample
    assert torch.equal(unet(*given).sample, expected)
