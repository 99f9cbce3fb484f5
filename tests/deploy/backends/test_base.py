"""The registry of backends as networks meet it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import edadm
from edadm.config.backends import BACKENDS, BackendEntry, resolved
from edadm.config.schema import Bits
from edadm.deploy.backends.base import Backend, implementation, lower
from edadm.deploy.grids import quantized_copy
from edadm.errors import EdadmError
from edadm.quant.format import INTEGERS
from edadm.quant.scheme import Scheme

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


@pytest.mark.parametrize("bits", INTEGERS)
def test_which_schemes_a_backend_runs(bits: int) -> None:
    plain = Scheme(INTEGERS[bits], "tensor")
    schemes = {
        "plain": plain,
        "smooth": replace(plain, transforms=("smooth",)),
        "rotated": replace(plain, transforms=("smooth", "hadamard", "low_rank")),
        "tokens": replace(plain, granularity="token", is_dynamic=True, is_symmetric=True),
        "other": replace(plain, transforms=("smooth", "wavelet")),
        "dynamic": replace(plain, is_dynamic=True),
    }
    by_name = {}
    for name, entry in BACKENDS.items():
        with suppress(*[EdadmError] if entry.extra else []):
            by_name[name] = implementation(entry)
    runs = {name: [kind for kind in schemes if by_name[name].runs(schemes[kind])] for name in by_name}
    assert runs["simulated"] == list(schemes)  # what is read from a file is one that is known
    assert runs["onednn"] == ["plain", "smooth", "rotated", "tokens"]
    others = [known for name, known in runs.items() if name not in ("simulated", "onednn")]
    assert others
    assert all(known == ["plain", "smooth"] for known in others)


def test_a_network_of_a_scheme_that_a_backend_does_not_run_is_refused(
    toy_backend: str, float_unet: nn.Module
) -> None:
    unet = quantized_copy(float_unet, Bits(weights=4, smoothing_layers={"mid_block.*.to_q": 0.5}))
    sentence = (
        r"^mid_block\.attentions\.0\.to_q: backend 'toy' computes no weight of static affine int4 per channel "
        r"after smooth; load with one that does: 'simulated', 'onednn'"
    )
    with pytest.raises(EdadmError, match=sentence):
        lower(unet, backend=toy_backend)
    assert lower(unet, backend="simulated") is unet


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
