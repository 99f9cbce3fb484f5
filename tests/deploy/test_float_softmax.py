"""Attention weights that stay in floating point, in files and on the CPU's integers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from edadm.config.schema import Bits, Model
from edadm.deploy.backends.onednn import lower_for_cpu
from edadm.deploy.checkpoint import load_quantized, read_metadata, save_quantized
from edadm.deploy.grids import quantized_copy
from edadm.networks.families import network_call
from edadm.nn.insert import activation_quantizers, quantized_layers
from edadm.passes.ranges import set_ranges

from ..conftest import as_rows

BITS = Bits(weights=8, activations=8, softmax=None, range_batch_size=8, range_bins=64)


@pytest.fixture(scope="module")
def unet(float_unet: nn.Module, calibration: tuple[Tensor, Tensor]) -> nn.Module:
    made = quantized_copy(float_unet, BITS)
    set_ranges(made, as_rows(calibration), BITS)
    return made


@torch.no_grad()
def test_its_file_has_no_grid_for_them_and_makes_the_same_network(
    unet: nn.Module, calibration: tuple[Tensor, Tensor], model: Model, tmp_path: Path
) -> None:
    path, rows = tmp_path / "quantized.safetensors", as_rows(calibration)
    save_quantized(unet, path, model.architecture, BITS, {})
    loaded = load_quantized(path)
    assert torch.equal(network_call(loaded, rows), network_call(unet, rows))
    roles = {site.rpartition(".")[2] for site in read_metadata(path)["sites"]}
    assert roles == {"weight", "input", "q", "k", "v"}
    assert not any("softmax" in name for name in activation_quantizers(loaded))


@torch.no_grad()
def test_integers_on_a_cpu_multiply_codes_of_values_with_them(
    unet: nn.Module, calibration: tuple[Tensor, Tensor]
) -> None:
    for name, layer in quantized_layers(unet).items():
        assert layer.codes is not None, name
    rows = as_rows(calibration)
    simulated, integer = network_call(unet, rows), network_call(lower_for_cpu(unet), rows)
    assert (integer - simulated).abs().median() < 1e-5 * simulated.abs().max()


def test_one_bit_is_no_width() -> None:
    with pytest.raises(ValidationError, match="greater than or equal to 2"):
        Bits(softmax=1)
