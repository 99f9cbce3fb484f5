"""Reconstruction of a whole network, undisturbed and resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from edadm.config.schema import Bits, Reconstruction
from edadm.deploy.grids import quantized_copy, set_grids
from edadm.errors import EdadmError
from edadm.learning import chain
from edadm.learning.capture.arguments import Arguments
from edadm.learning.capture.data import UnitData
from edadm.learning.engine import UnitReport, learn_unit, unit_errors
from edadm.learning.task import refuse_idle_patterns, settings_of
from edadm.learning.unit_store import FolderUnitStore
from edadm.networks.units.trace import trace_units
from edadm.networks.units.unit import Unit
from edadm.nn.insert import quantized_layers

from .runs import Calibration, Reports, UnitsInMemory, learned, same, state


@pytest.fixture(scope="module")
def undisturbed(
    float_unet: UNet2DModel,
    ranges: dict[str, Tensor],
    bits: Bits,
    calibration: Calibration,
    settings: Reconstruction,
) -> tuple[nn.Module, Reports, UnitsInMemory]:
    unet, unit_store = quantized_copy(float_unet, bits), UnitsInMemory()
    set_grids(unet, ranges)
    return unet, learned(float_unet, unet, calibration, settings, unit_store), unit_store


def test_every_unit_is_learned_once_in_order(
    undisturbed: tuple[nn.Module, Reports, UnitsInMemory], float_unet: UNet2DModel
) -> None:
    unet, reports, unit_store = undisturbed
    units = trace_units(float_unet)
    assert [unit for unit, _ in reports] == units
    assert unit_store.put_indices == list(range(len(units)))
    assert all(layer.codes is not None and layer.alpha is None for layer in quantized_layers(unet).values())
    assert not any(
        module._forward_hooks or module._forward_pre_hooks
        for module in [*unet.modules(), *float_unet.modules()]
    )


@pytest.mark.parametrize(("first", "on_disk"), [(5, False), (12, True)])
def test_a_run_that_finds_its_first_units_finished_ends_exactly_like_an_undisturbed_one(
    first: int,
    on_disk: bool,
    undisturbed: tuple[nn.Module, Reports, UnitsInMemory],
    float_unet: UNet2DModel,
    gridded: Callable[[], nn.Module],
    calibration: Calibration,
    settings: Reconstruction,
    tmp_path: Path,
) -> None:
    expected, reports, full = undisturbed
    unit_store: UnitsInMemory | FolderUnitStore = UnitsInMemory(
        {index: full.kept[index] for index in range(first)}
    )
    if on_disk:
        unit_store = FolderUnitStore(tmp_path)
        for index, unit in enumerate(trace_units(float_unet)[:first]):
            unit_store.put(index, unit, full.kept[index])
    unet = gridded()
    resumed = learned(float_unet, unet, calibration, settings, unit_store)
    assert same(state(unet), state(expected))
    assert [report for _, report in resumed] == [report for _, report in reports]


def test_a_run_killed_in_the_middle_goes_on_exactly(
    undisturbed: tuple[nn.Module, Reports, UnitsInMemory],
    float_unet: UNet2DModel,
    gridded: Callable[[], nn.Module],
    calibration: Calibration,
    settings: Reconstruction,
    tmp_path: Path,
) -> None:
    unit_store, finished = FolderUnitStore(tmp_path), []

    def killed(units: int) -> None:
        finished.append(units)
        if len(finished) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        learned(float_unet, gridded(), calibration, settings, unit_store, killed)
    assert len(list(tmp_path.iterdir())) == 4
    unet = gridded()
    learned(float_unet, unet, calibration, settings, unit_store)
    assert same(state(unet), state(undisturbed[0]))


def test_the_batch_size_of_the_passes_changes_nothing_but_rounding(
    undisturbed: tuple[nn.Module, Reports, UnitsInMemory],
    float_unet: UNet2DModel,
    gridded: Callable[[], nn.Module],
    calibration: Calibration,
    settings: Reconstruction,
) -> None:
    reports = learned(
        float_unet,
        gridded(),
        calibration,
        settings.model_copy(update={"chain_batch_size": 3}),
        UnitsInMemory(),
    )
    for (unit, a), (_, b) in zip(reports, undisturbed[1], strict=True):
        assert a.before == pytest.approx(b.before, rel=0.05, abs=1e-4), unit.name


def test_another_seed_learns_something_else(
    undisturbed: tuple[nn.Module, Reports, UnitsInMemory],
    float_unet: UNet2DModel,
    gridded: Callable[[], nn.Module],
    calibration: Calibration,
    settings: Reconstruction,
) -> None:
    unet = gridded()
    learned(float_unet, unet, calibration, settings.model_copy(update={"seed": 5}), UnitsInMemory())
    assert not same(state(unet), state(undisturbed[0]))


def test_without_reconstruction_every_weight_is_rounded_to_nearest(
    float_unet: UNet2DModel,
    gridded: Callable[[], nn.Module],
    calibration: Calibration,
    settings: Reconstruction,
) -> None:
    unet, fresh, unit_store = gridded(), gridded(), UnitsInMemory()
    assert (
        learned(float_unet, unet, calibration, settings.model_copy(update={"method": "none"}), unit_store)
        == []
    )
    assert unit_store.kept == {}
    for name, layer in quantized_layers(unet).items():
        assert layer.codes is not None
        assert torch.equal(layer.codes, quantized_layers(fresh)[name].nearest_codes())


def test_the_last_matching_pattern_decides_how_long_a_unit_learns() -> None:
    settings = Reconstruction(iterations=10, unit_iterations={"conv*": 20, "conv_out": 30})
    lengths = [
        settings_of(Unit(name, "layer", (name,)), settings).iterations
        for name in ("mid", "conv_in", "conv_out")
    ]
    assert lengths == [10, 20, 30]


def test_a_pattern_that_matches_no_unit_is_refused() -> None:
    units = [Unit(name, "layer", (name,)) for name in ("conv_in", "conv_out")]
    refuse_idle_patterns(units, Reconstruction(unit_iterations={"conv*": 20}))
    with pytest.raises(
        EdadmError,
        match=r"unit_iterations: the pattern 'conv_on' matches no unit, such as 'conv_in'; remove it",
    ):
        refuse_idle_patterns(units, Reconstruction(unit_iterations={"conv*": 20, "conv_on": 30}))


def test_the_reported_error_after_learning_is_that_of_the_finished_unit_in_its_place(
    undisturbed: tuple[nn.Module, Reports, UnitsInMemory], float_unet: UNet2DModel, calibration: Calibration
) -> None:
    unet, reports, _ = undisturbed
    inputs: list[Tensor] = []
    handle = unet.get_submodule("conv_out").register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    with torch.no_grad():
        unet(*calibration)
        target = float_unet(*calibration).sample
    handle.remove()
    error, _ = unit_errors(
        unet.get_submodule("conv_out"),
        UnitData(Arguments({0: inputs[0]}), Arguments({0: inputs[0]}), target, {}),
        8,
    )
    assert reports[-1][1].after == pytest.approx(error, rel=1e-3)


def test_units_learn_from_both_networks_and_from_all_but_the_last_inner_layer_and_leave_the_float_one_alone(
    float_unet: UNet2DModel,
    gridded: Callable[[], nn.Module],
    calibration: Calibration,
    settings: Reconstruction,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = {name: parameter.clone() for name, parameter in float_unet.state_dict().items()}
    seen: dict[str, UnitData] = {}
    unet, units = gridded(), trace_units(float_unet)
    by_module = {id(unet.get_submodule(unit.name)): unit.name for unit in units}

    def listening_learn(module: nn.Module, data: UnitData, *others: object) -> UnitReport:
        seen[by_module[id(module)]] = data
        return learn_unit(module, data, *others)

    monkeypatch.setattr(chain, "learn_unit", listening_learn)
    learned(float_unet, unet, calibration, settings.model_copy(update={"iterations": 1}), UnitsInMemory())
    assert list(seen) == [unit.name for unit in units]
    assert set(seen["mid_block.resnets.0"].layer_targets) == {"conv1", "time_emb_proj"}
    assert set(seen["up_blocks.0.resnets.0"].layer_targets) == {"conv1", "time_emb_proj", "conv2"}
    assert set(seen["mid_block.attentions.0"].layer_targets) == {"to_q", "to_k", "to_v"}
    assert seen["conv_out"].layer_targets == {}
    assert torch.equal(seen["conv_out"].target, float_unet(*calibration).sample)
    assert torch.equal(seen["conv_in"].exact.tensors[0], calibration[0])
    middle = seen["mid_block.resnets.0"]
    difference = (middle.quantized.tensors[0] - middle.exact.tensors[0]).abs().mean() / middle.exact.tensors[
        0
    ].std()
    assert 1e-3 < difference < 0.5
    assert same(dict(float_unet.state_dict()), before)


def test_a_unit_that_is_no_numbers_is_named_and_not_kept_and_those_before_it_are(
    float_unet: UNet2DModel,
    gridded: Callable[[], nn.Module],
    calibration: Calibration,
    settings: Reconstruction,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    units, calls = trace_units(float_unet), []

    def failing(module: nn.Module, data: UnitData, *others: object) -> UnitReport:
        calls.append(module)
        report = learn_unit(module, data, *others)
        return dataclasses.replace(report, soft=torch.nan) if len(calls) == 3 else report

    monkeypatch.setattr(chain, "learn_unit", failing)
    unit_store = UnitsInMemory()
    sentence = f"the unit '{units[2].name}' was not kept, since its error while learning is nan; units before it are; lower weight_lr"
    with pytest.raises(EdadmError, match=sentence):
        learned(float_unet, gridded(), calibration, settings.model_copy(update={"iterations": 1}), unit_store)
    assert len(calls) == 3
    assert unit_store.put_indices == [0, 1]
