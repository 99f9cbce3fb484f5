"""What learning costs, beside plain PyTorch."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from diffusers import UNet2DModel
from torch import nn

from edadm.benchmark import calibration as benchmark
from edadm.benchmark.calibration import compare, learning_cost
from edadm.config.schema import Reconstruction
from edadm.kernels import dispatch
from edadm.learning.task import Task
from edadm.learning.unit_store import UnitStore
from edadm.learning.unkept import NoUnitStore
from edadm.networks.units.trace import trace_units
from edadm.passes.methods import run_method

from ..learning.runs import Calibration, a_task

COST = {"seconds", "learning_seconds", "other_seconds", "steps", "ms_per_step", "peak_gib"}


def test_the_steps_of_all_units_are_counted_and_timed(
    float_unet: UNet2DModel,
    gridded: Callable[[], nn.Module],
    calibration: Calibration,
    settings: Reconstruction,
) -> None:
    some = settings.model_copy(update={"iterations": 1, "unit_iterations": {"conv_*": 3}})
    cost = learning_cost(a_task(float_unet, gridded(), calibration, some, NoUnitStore()))
    names = [unit.name for unit in trace_units(float_unet)]
    assert cost.keys() == COST
    assert cost["steps"] == len(names) + 2 * sum(name.startswith("conv_") for name in names)
    assert cost["peak_gib"] == 0
    assert 0 < cost["learning_seconds"] < cost["seconds"]
    assert cost["other_seconds"] == pytest.approx(cost["seconds"] - cost["learning_seconds"])
    assert cost["ms_per_step"] == pytest.approx(1000 * cost["learning_seconds"] / cost["steps"])


def test_plain_pytorch_goes_first_without_kernels_and_graphs_for_fewer_steps(
    float_unet: UNet2DModel,
    gridded: Callable[[], nn.Module],
    calibration: Calibration,
    settings: Reconstruction,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[bool, bool, int]] = []

    def learn(task: Task) -> None:
        made.append((dispatch._PLAIN.get(), task.graphs, task.settings.iterations))
        run_method(task)

    def make_task(changed: Reconstruction, unit_store: UnitStore) -> Task:
        return a_task(float_unet, gridded(), calibration, changed, unit_store)

    monkeypatch.setattr(benchmark, "run_method", learn)
    longer = settings.model_copy(update={"unit_iterations": {"conv_in": 4}})
    result = compare(make_task, longer, plain_iterations=1)
    count = len(trace_units(float_unet))
    assert made == [(True, False, 1), (False, True, 2)]
    assert not dispatch._PLAIN.get()
    assert result.keys() == {"settings", "device", "engine", "plain", "ratio"}
    assert result["device"] == "cpu"
    assert (result["plain"]["steps"], result["engine"]["steps"]) == (count, 2 * count + 2)
    assert result["ratio"] == result["plain"]["ms_per_step"] / result["engine"]["ms_per_step"]
    assert json.loads(json.dumps(result))["settings"]["unit_iterations"] == {"conv_in": 4}
