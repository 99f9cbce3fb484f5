"""The full-size pass, with tiny relatives of the published networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from edadm.config.schema import Model
from edadm.deploy.checkpoint import read_metadata
from edadm.pilot import full_size
from edadm.pilot.full_size import all_families, as_markdown, family_pass
from edadm.pilot.measured import RandomCondition
from edadm.pilot.scaled import FAMILIES, Scale, chosen_units, scaled_run
from edadm.quant import ranges
from edadm.stages.cost.networks import Networks

from ..networks.families import tiny

CPU = torch.device("cpu")
SCALE = Scale(rows=4, steps=4, units=3, iterations=2, images=2)
GENERATED = [
    f"generate {kind} {precision}"
    for kind in ("float", "simulated")
    for precision in ("fp32", "bf16", "fp16")
]


@pytest.mark.parametrize("name", ["ldm4_imagenet", "sd14_coco"])
def test_a_family_goes_through_all_stages_beside_its_plan(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "THRESHOLDS", 5)
    found = family_pass(tiny(name), FAMILIES[name], SCALE, tmp_path, CPU)
    stages = {row["stage"]: row for row in found["stages"]}
    learning = ["collect-trajectories", "select-calibration", "set-ranges", "reconstruct"]
    assert list(stages) == [*learning, *GENERATED[:3], "reload", *GENERATED[3:]]
    assert all(row["seconds"] > 0 and row["peak_bytes"] is None for row in stages.values())
    assert {stage for stage, row in stages.items() if row["estimated_seconds"] is None} == {"reload"}
    assert all(
        row["estimated_bytes"] > 0
        for stage, row in stages.items()
        if stage not in ("reload", "select-calibration")
    )
    assert len(found["units"]) == len(list((tmp_path / "units").iterdir())) == 3
    assert found["images"].keys() == set(GENERATED)
    assert not any("failed" in image for image in found["images"].values())
    assert found["checkpoint_bytes"] == (tmp_path / "quantized.safetensors").stat().st_size
    assert read_metadata(tmp_path / "quantized.safetensors")["bits"]["weights"] == 4
    assert found["probe"]["learning"]


def test_the_fullest_unit_is_among_the_chosen_ones_which_are_spread() -> None:
    run = scaled_run(tiny("ldm8_church"), FAMILIES["ldm8_church"], SCALE)
    networks = Networks(run.model)
    units = networks.learned_units(run.reconstruction, run.bits)
    peak = networks.demand(run.reconstruction, 4).peak().name
    for count in (1, 2, 4):
        chosen = chosen_units(networks, run, count)
        assert len(chosen) == count
        assert peak in {unit.name for unit in chosen}
        assert [unit for unit in units if unit in chosen] == chosen
    assert chosen_units(networks, run, 1000) == units


def test_a_scaled_run_keeps_all_but_its_numbers() -> None:
    model = tiny("ldm4_imagenet")
    run = scaled_run(model, FAMILIES["ldm4_imagenet"], Scale(rows=5, steps=3, iterations=7, images=2))
    assert run.model.architecture == model.architecture
    assert (run.model.sampler.steps, run.model.trajectories.count, run.model.trajectories.batch_size) == (
        3,
        5,
        3,
    )
    assert (run.calibration.size, run.calibration.lambda_, run.calibration.radius) == (5, 0.5, 3.0)
    assert (
        run.reconstruction.iterations,
        run.reconstruction.batch_size,
        run.reconstruction.layer_weight,
    ) == (7, 32, 1.3)
    assert (run.evaluation.images, run.evaluation.batch_size, run.evaluation.precision) == (2, 2, "fp32")


def test_random_conditions_are_functions_of_the_index() -> None:
    condition = RandomCondition({"context": (3, 5), "time_ids": (6,)}, CPU)
    rows = condition.rows([4, 1])
    assert {name: tensor.shape for name, tensor in rows.items()} == {"context": (2, 3, 5), "time_ids": (2, 6)}
    assert not rows["time_ids"].is_floating_point()
    for name, tensor in rows.items():
        assert torch.equal(tensor[1:], condition.rows([1])[name])
        assert not torch.equal(tensor[0], tensor[1])
        assert condition.unconditional()[name].shape == (1, *tensor.shape[1:])


def test_a_family_that_does_not_fit_says_so_and_the_next_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {
        "stage": "generate float bf16",
        "seconds": 1.5,
        "peak_bytes": 2**30,
        "estimated_seconds": 1.0,
        "estimated_bytes": 2**31,
    }
    reload = {
        "stage": "reload",
        "seconds": 0.25,
        "peak_bytes": 2**29,
        "estimated_seconds": None,
        "estimated_bytes": None,
    }
    small = {"stages": [row, reload], "images": {"generate float bf16": {"psnr": 41.26}}}

    def one(model: Model, *_: Any) -> dict[str, Any]:
        if model.checkpoint == "large":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 TiB")
        return small

    monkeypatch.setattr(full_size, "family_pass", one)
    told: list[int] = []
    names = ("c", "b", "r", "e")
    families = {"a": (Model(checkpoint="large"), names), "b": (Model(checkpoint="small"), names)}
    result = all_families(families, SCALE, CPU, lambda so_far: told.append(len(so_far["families"])))
    assert told == [1, 2]
    assert result["families"] == {"a": {"failed": "CUDA out of memory"}, "b": small}
    assert json.loads(json.dumps(result))["scale"]["rows"] == 4
    assert as_markdown(result).splitlines()[2:] == [
        "| a | CUDA out of memory | | | |",
        "| b | generate float bf16 | 1.50 (1.00) | 1.00 (2.00) | 41.3 |",
        "| b | reload | 0.25 | 0.50 |  |",
    ]
