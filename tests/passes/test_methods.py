"""What tells the methods apart, and how units are shared among jobs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from edadm.config.methods import METHODS, Method
from edadm.config.schema import Reconstruction
from edadm.learning import chain
from edadm.learning.capture.data import UnitData
from edadm.learning.engine import UnitReport, learn_unit
from edadm.learning.unit_store import FolderUnitStore
from edadm.networks.units.trace import trace_units
from edadm.nn.insert import activation_quantizers, quantized_layers
from edadm.passes.methods import PASSES, passes_of, run_method

from ..learning.runs import Calibration, UnitsInMemory, a_task, learned, same, state

Gridded = Callable[[], nn.Module]


def with_method(settings: Reconstruction, method: str, **changes: object) -> Reconstruction:
    """The settings with another method, checked again."""
    return Reconstruction.model_validate(settings.model_dump() | {"method": method, **changes})


def layer_targets_of(
    monkeypatch: pytest.MonkeyPatch,
    float_unet: UNet2DModel,
    unet: nn.Module,
    calibration: Calibration,
    settings: Reconstruction,
) -> dict[str, set[str]]:
    """Which inner layers each unit learns from, by name of the unit."""
    names = {id(unet.get_submodule(unit.name)): unit.name for unit in trace_units(float_unet)}
    seen: dict[str, set[str]] = {}

    def listening_learn(module: nn.Module, data: UnitData, *others: object) -> UnitReport:
        seen[names[id(module)]] = set(data.layer_targets)
        return learn_unit(module, data, *others)

    monkeypatch.setattr(chain, "learn_unit", listening_learn)
    learned(float_unet, unet, calibration, settings, UnitsInMemory())
    return seen


def test_layer_learns_every_layer_in_order_of_execution_and_leaves_attention_operands_as_searched(
    float_unet: UNet2DModel,
    gridded: Gridded,
    ranges: dict[str, Tensor],
    calibration: Calibration,
    settings: Reconstruction,
) -> None:
    order: list[str] = []
    layers = {
        name: module
        for name, module in float_unet.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    }
    handles = [
        module.register_forward_hook(lambda *_, n=name: order.append(n)) for name, module in layers.items()
    ]
    float_unet(*calibration)
    for handle in handles:
        handle.remove()
    unet = gridded()
    reports = learned(
        float_unet, unet, calibration, with_method(settings, "layer", iterations=1), UnitsInMemory()
    )
    assert {unit.kind for unit, _ in reports} == {"layer"}
    assert [unit.name for unit, _ in reports] == order
    assert set(order) == set(quantized_layers(unet)) == set(layers)
    assert all(layer.codes is not None for layer in quantized_layers(unet).values())
    moved = {
        name: not torch.equal(q.scale, ranges[f"{name}.scale"])
        for name, q in activation_quantizers(unet).items()
    }
    operands = [name for name in moved if not name.endswith("input_quantizer")]
    assert len(operands) == 4 * sum(unit.kind == "attention" for unit in trace_units(float_unet))
    assert not any(moved[name] for name in operands)
    assert all(is_moved for name, is_moved in moved.items() if name not in operands)


def test_block_is_fbr_without_layer_errors(
    float_unet: UNet2DModel, gridded: Gridded, calibration: Calibration, settings: Reconstruction
) -> None:
    block, without, fbr = gridded(), gridded(), gridded()
    reports = learned(float_unet, block, calibration, with_method(settings, "block"), UnitsInMemory())
    assert (
        learned(
            float_unet, without, calibration, with_method(settings, "fbr", layer_weight=0), UnitsInMemory()
        )
        == reports
    )
    learned(float_unet, fbr, calibration, settings, UnitsInMemory())
    assert same(state(block), state(without))
    assert not same(state(block), state(fbr))


@pytest.mark.parametrize(
    ("kinds", "spared"), [((), ()), (("attention",), ("attentions",)), (("res_block",), ("resnets",))]
)
def test_kinds_of_units_without_layer_errors_learn_from_their_own_alone(
    kinds: tuple[str, ...],
    spared: tuple[str, ...],
    float_unet: UNet2DModel,
    gridded: Gridded,
    calibration: Calibration,
    settings: Reconstruction,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = with_method(settings, "fbr", without_layer_errors=kinds, iterations=1)
    seen = layer_targets_of(monkeypatch, float_unet, gridded(), calibration, few)
    blocks = {name: targets for name, targets in seen.items() if "resnets" in name or "attentions" in name}
    for name, targets in blocks.items():
        assert bool(targets) != any(part in name for part in spared), name


@pytest.mark.parametrize("method", ["fbr", "fbr_float_inputs"])
def test_errors_of_attentions_inner_layers_alone_are_summed_over_the_last_axis(
    method: str,
    float_unet: UNet2DModel,
    gridded: Gridded,
    calibration: Calibration,
    settings: Reconstruction,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The original's are 1x1 convolutions, with channels in axis 1; its transformers' errors are summed over tokens (method, 4.3)."""
    unet, seen = gridded(), {}
    names = {id(unet.get_submodule(unit.name)): unit.name for unit in trace_units(float_unet)}

    def listening_learn(module: nn.Module, data: UnitData, *others: object) -> UnitReport:
        seen[names[id(module)]] = data.channels_last
        return learn_unit(module, data, *others)

    monkeypatch.setattr(chain, "learn_unit", listening_learn)
    learned(float_unet, unet, calibration, with_method(settings, method, iterations=1), UnitsInMemory())
    assert {unit.name for unit in trace_units(float_unet) if unit.kind == "attention"} == {
        name for name, is_last in seen.items() if is_last
    }
    assert any(seen.values())
    assert not all(seen.values())


@pytest.fixture(scope="module")
def shared(settings: Reconstruction) -> Reconstruction:
    """Independent units, for three jobs."""
    return with_method(settings, "fbr_float_inputs", jobs=3)


def test_three_jobs_learn_what_one_learns(
    float_unet: UNet2DModel,
    gridded: Gridded,
    calibration: Calibration,
    shared: Reconstruction,
    tmp_path: Path,
) -> None:
    units = trace_units(float_unet)
    whole = gridded()
    reports = learned(float_unet, whole, calibration, shared.model_copy(update={"jobs": 1}), UnitsInMemory())
    assert [unit for unit, _ in reports] == units
    folders = [tmp_path / str(part) for part in range(3)]
    for part in (2, 0, 1):
        task = a_task(float_unet, gridded(), calibration, shared, FolderUnitStore(folders[part]))
        run_method(dataclasses.replace(task, chosen=range(part, len(units), 3)))
        assert [unit for unit, _ in task.reports] == units[part::3]
        assert len(list(folders[part].iterdir())) == len(units[part::3])
    together = gridded()
    task = a_task(float_unet, together, calibration, shared, FolderUnitStore(tmp_path / "own", *folders))
    passes: list[object] = []
    handles = [
        network.register_forward_pre_hook(lambda *_: passes.append(1)) for network in (float_unet, together)
    ]
    run_method(task)
    assert task.reports == reports
    for handle in handles:
        handle.remove()
    assert passes == []
    assert list((tmp_path / "own").iterdir()) == []
    assert same(state(together), state(whole))


def test_a_lost_unit_is_learned_again_when_parts_are_put_together(
    float_unet: UNet2DModel, gridded: Gridded, calibration: Calibration, shared: Reconstruction
) -> None:
    whole, unit_store = gridded(), UnitsInMemory()
    learned(float_unet, whole, calibration, shared, unit_store)
    again, rest = (
        gridded(),
        UnitsInMemory({index: unit for index, unit in unit_store.kept.items() if index != 6}),
    )
    learned(float_unet, again, calibration, shared, rest)
    assert rest.put_indices == [6]
    assert same(state(again), state(whole))


def test_independent_units_see_the_float_networks_activations_alone(
    float_unet: UNet2DModel,
    gridded: Gridded,
    calibration: Calibration,
    shared: Reconstruction,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[UnitData] = []

    def listening_learn(module: nn.Module, data: UnitData, *others: object) -> UnitReport:
        seen.append(data)
        return learn_unit(module, data, *others)

    monkeypatch.setattr(chain, "learn_unit", listening_learn)
    learned(float_unet, gridded(), calibration, shared.model_copy(update={"iterations": 1}), UnitsInMemory())
    for data in seen:
        assert all(
            torch.equal(tensor, data.exact.tensors[name]) for name, tensor in data.quantized.tensors.items()
        )
    assert torch.equal(seen[-1].target, float_unet(*calibration).sample)


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_passes_are_there_and_learn_from_what_its_row_says(name: str) -> None:
    method, passes = METHODS[name], passes_of(name)
    assert [PASSES[one] for one in method.passes] == passes
    assert any(one.learns for one in passes) == method.learns
    assert {one.inputs for one in passes if one.learns} == {method.inputs} - {None}
    assert (method.networks, method.independent) == {
        None: (0, False),
        "float": (1, True),
        "chain": (2, False),
    }[method.inputs]


def test_every_pass_belongs_to_a_method() -> None:
    assert {one for method in METHODS.values() for one in method.passes} == set(PASSES)


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            Method(("correct_bias", "reconstruct"), "", "chain"),
            "'correct_bias' reads codes before they are there",
        ),
        (Method((), ""), "writes no codes"),
        (Method(("reconstruct",), "", "float"), "learn from other inputs than 'float'"),
        (Method(("reconstruct",), ""), "learn from other inputs than 'None'"),
        (Method(("round_to_nearest",), "", "chain"), "learn from other inputs than 'chain'"),
    ],
)
def test_passes_that_make_no_method_are_refused(
    row: Method, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, "wrong", row)
    with pytest.raises(ValueError, match=f"method 'wrong'.*{sentence}"):
        passes_of("wrong")


def test_weights_that_are_rounded_already_are_not_learned(
    float_unet: UNet2DModel, gridded: Gridded, calibration: Calibration, settings: Reconstruction
) -> None:
    unet = gridded()
    layer = quantized_layers(unet)["conv_in"]
    layer.set_codes(layer.nearest_codes())
    with pytest.raises(ValueError, match=r"weights of conv_in are rounded already.*fresh copy"):
        run_method(a_task(float_unet, unet, calibration, settings, UnitsInMemory()))
    run_method(a_task(float_unet, unet, calibration, with_method(settings, "none"), UnitsInMemory()))
