"""The registry of backends as networks meet it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import edadm
from edadm.config.backends import BACKENDS, BackendEntry, resolved
from edadm.deploy.backends.base import Backend, implementation
from edadm.errors import EdadmError
from edadm.nn.insert import quantized_layers

from ...conftest import Calibration


@pytest.mark.parametrize("name", BACKENDS)
def test_every_row_names_a_module_with_a_backend(name: str) -> None:
    try:
        found = implementation(BACKENDS[name])
    except EdadmError as absent:
        assert BACKENDS[name].extra
        pytest.skip(str(absent))
    assert isinstance(found, Backend)


def test_the_alias_computes_as_what_it_means_and_names_fit_their_devices(
    saved: Path, calibration: Calibration
) -> None:
    alias, concrete = (edadm.load(saved, backend=name) for name in ("integer", "onednn"))
    assert torch.equal(alias(*calibration).sample, concrete(*calibration).sample)
    assert (alias.backend, concrete.backend) == ("integer", "onednn")
    sentence = (
        "there is no cuda_int8 arithmetic for the device 'cpu'; load with 'cuda', or with backend 'simulated'"
    )
    with pytest.raises(EdadmError, match=f"^{sentence}$"):
        edadm.load(saved, backend="cuda_int8")


def test_which_layers_a_backend_runs(saved: Path) -> None:
    layers = quantized_layers(edadm.load(saved))
    by_name = {name: implementation(entry) for name, entry in BACKENDS.items() if not entry.extra}
    runs = {name: [layer for layer in layers if by_name[name].runs(layers[layer])] for name in by_name}
    assert runs["simulated"] == list(layers)
    assert runs["onednn"] == runs["cuda_int8"] == [layer for layer in layers if layer != "conv_out"]


def test_a_registered_backend_is_loaded_by_its_name(
    toy_backend: str, saved: Path, calibration: Calibration
) -> None:
    expected = edadm.load(saved)(*calibration).sample
    unet = edadm.load(saved, backend=toy_backend)
    assert torch.equal(unet(*calibration).sample, expected / 2)
    with pytest.raises(EdadmError, match="a network with backend 'toy' cannot be saved"):
        unet.save_pretrained(saved.parent / "folder")
    with pytest.raises(EdadmError, match="there is no toy arithmetic for the device 'cuda'; load with 'cpu'"):
        resolved(toy_backend, "cuda")


def test_a_package_that_a_backend_lacks_is_named_before_the_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "backend_without_its_package.py").write_text("import absent_runtime")
    monkeypatch.syspath_prepend(tmp_path)
    entry = BackendEntry("lacking", "backend_without_its_package", "by what is absent", extra="runtime")
    monkeypatch.setitem(BACKENDS, "lacking", entry)
    sentence = r"backend 'lacking' needs the package 'absent_runtime'; install it with `pip install edadm\[runtime\]`"
    with pytest.raises(EdadmError, match=sentence):
        edadm.load(tmp_path / "absent.safetensors", backend="lacking")
