"""Rows that measure and are not learned from, and biases corrected on the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from torch import nn

from edadm.config.schema import Bits, Model, Reconstruction
from edadm.deploy.checkpoint import load_quantized, save_quantized
from edadm.learning.capture.data import UnitData
from edadm.learning.unit_store import FolderUnitStore
from edadm.nn.insert import quantized_layers
from edadm.passes import bias
from edadm.sampling.noise import keyed_generator

from .runs import Calibration, UnitsInMemory, learned, same, state

Gridded = Callable[[], nn.Module]


@pytest.mark.parametrize("changes", [{}, {"method": "fbr_float_inputs"}, {"bias_correction": True}], ids=str)
def test_held_out_rows_measure_and_do_not_influence(
    changes: dict[str, object],
    float_unet: UNet2DModel,
    gridded: Gridded,
    calibration: Calibration,
    settings: Reconstruction,
) -> None:
    changed = settings.model_copy(update=changes)
    more = torch.randn(2, *calibration[0].shape[1:], generator=keyed_generator(9, "held out"))
    inputs = torch.cat([calibration[0], more]), torch.cat([calibration[1], torch.tensor([700, 100])])
    without, beside = gridded(), gridded()
    plain = learned(float_unet, without, calibration, changed, UnitsInMemory())
    measured = learned(float_unet, beside, inputs, changed, UnitsInMemory(), held_out=2)
    assert same(state(beside), state(without))
    for (unit, a), (_, b) in zip(plain, measured, strict=True):
        assert (a.before, a.soft, a.after, a.flipped) == (b.before, b.soft, b.after, b.flipped), unit.name
        assert a.held_out_before is None
        assert a.held_out_after is None
        assert b.held_out_before is not None
        assert b.held_out_before > 0
        assert b.held_out_after is not None
        assert b.held_out_after != b.after


@pytest.fixture(scope="module")
def correcting(settings: Reconstruction) -> Reconstruction:
    """Few iterations, and biases corrected after them."""
    return settings.model_copy(update={"bias_correction": True})


def test_corrected_biases_survive_kills_and_checkpoints_and_leave_the_float_network_alone(
    float_unet: UNet2DModel,
    gridded: Gridded,
    calibration: Calibration,
    correcting: Reconstruction,
    bits: Bits,
    model: Model,
    tmp_path: Path,
) -> None:
    before = {name: tensor.clone() for name, tensor in float_unet.state_dict().items()}
    whole, unit_store = gridded(), FolderUnitStore(tmp_path / "units")
    reports = learned(float_unet, whole, calibration, correcting, unit_store)
    assert same(dict(float_unet.state_dict()), before)
    for name, layer in quantized_layers(whole).items():
        assert layer.bias is None or not torch.equal(layer.bias, before[f"{name}.bias"]), name
    for path in sorted((tmp_path / "units").iterdir())[5:]:
        path.unlink()
    resumed, put_together = gridded(), gridded()
    assert learned(float_unet, resumed, calibration, correcting, unit_store) == reports
    assert same(state(resumed), state(whole))
    assert learned(float_unet, put_together, calibration, correcting, unit_store) == reports
    assert same(state(put_together), state(whole))
    save_quantized(resumed, path := tmp_path / "quantized.safetensors", model.architecture, bits, {})
    loaded = load_quantized(path)
    for name, layer in quantized_layers(whole).items():
        found = loaded.get_submodule(name)
        assert torch.equal(found.bias, layer.bias), name
        assert torch.equal(found.codes, layer.codes), name


def test_errors_after_a_correction_are_those_of_corrected_biases(
    float_unet: UNet2DModel,
    gridded: Gridded,
    calibration: Calibration,
    correcting: Reconstruction,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    corrected: list[bool] = []

    def errors(unit: nn.Module, data: UnitData, batch_size: int) -> tuple[float, float | None]:
        layers, original = quantized_layers(unit), float_unet.get_submodule(names[id(unit)])
        corrected.append(
            all(
                not torch.equal(layer.bias, original.get_submodule(name).bias)
                for name, layer in layers.items()
            )
        )
        return 7.0, 8.0

    unet = gridded()
    names = {id(module): name for name, module in unet.named_modules()}
    monkeypatch.setattr(bias, "unit_errors", errors)
    reports = learned(float_unet, unet, calibration, correcting, UnitsInMemory(), held_out=2)
    assert {(report.after, report.held_out_after) for _, report in reports} == {(7.0, 8.0)}
    assert corrected == [True] * len(reports)


def test_without_correction_biases_are_the_float_networks(
    float_unet: UNet2DModel, gridded: Gridded, calibration: Calibration, settings: Reconstruction
) -> None:
    unet = gridded()
    learned(float_unet, unet, calibration, settings.model_copy(update={"iterations": 1}), UnitsInMemory())
    for name, layer in quantized_layers(unet).items():
        assert torch.equal(layer.bias, float_unet.get_submodule(name).bias), name
