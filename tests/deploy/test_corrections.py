"""A correction of the sampler in a quantized checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edadm.config.schema import Bits, Model
from edadm.deploy.checkpoint import load_quantized, read_correction, save_quantized, say_that_none_applies
from edadm.deploy.load import load
from edadm.networks.weights import CheckpointError
from edadm.sampling.correction import Correction


def test_a_file_keeps_a_correction_and_is_as_ever_without_one(
    folded: nn.Module, bits: Bits, model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, corrected = tmp_path / "plain.safetensors", tmp_path / "corrected.safetensors"
    correction = Correction.of([3, 1], torch.tensor([[0.9], [1.1]]), torch.tensor([[0.1], [0.2]]))
    save_quantized(folded, plain, model.architecture, bits, {})
    save_quantized(folded, corrected, model.architecture, bits, {}, correction=correction.tensors())
    assert read_correction(plain) is None
    found = read_correction(corrected)
    assert found is not None
    for name, table in correction.tensors().items():
        assert torch.equal(found.tensors()[name], table)
    say_that_none_applies(plain)
    assert not capsys.readouterr().err
    network = load(corrected)
    assert "holds a correction of the sampler, which `edadm generate` applies" in capsys.readouterr().err
    for name, tensor in load_quantized(plain).state_dict().items():
        assert torch.equal(network.state_dict()[name], tensor), name


def test_a_damaged_correction_is_refused(folded: nn.Module, bits: Bits, model: Model, tmp_path: Path) -> None:
    tables = Correction.identity([3, 1], 3).tensors() | {"scale": torch.full((2, 3), torch.inf)}
    path = tmp_path / "damaged.safetensors"
    save_quantized(folded, path, model.architecture, bits, {}, correction=tables)
    with pytest.raises(CheckpointError, match=r"damaged\.safetensors: 'scale' of its correction is no table"):
        read_correction(path)
