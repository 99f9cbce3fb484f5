"""A plan as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edadm.config.schema import Model
from edadm.console import duration, size
from edadm.planning.show import as_table, as_values
from edadm.stages.cost.networks import Networks

from .fakes import rates, stages


def test_values_are_bytes_and_seconds_and_survive_json(model: Model) -> None:
    networks = Networks(model)
    values = json.loads(json.dumps(as_values("m", networks, stages(), rates())))
    assert values["parameters"] == networks.parameters
    rows = {row["stage"]: row for row in values["stages"]}
    assert rows["collect-trajectories"]["unet_evaluations"] == 24
    assert rows["collect-trajectories"]["unet_calls"] == 3
    assert rows["collect-trajectories"]["device_bytes"] == {
        "weights": 2**30,
        "work": 2**29,
        "kept": 0,
        "total": 2**30 + 2**29,
    }
    assert rows["reconstruct"]["learning_steps"] == 3 * 3 + 5
    assert rows["reconstruct"]["units"] == 4
    assert (rows["evaluate"]["images"], rows["evaluate"]["seconds"]) == (2, None)
    assert values["probe"]["evaluations"][0] == {
        "network": "float",
        "precision": "fp32",
        "batch_rows": 8,
        "seconds_per_row": 0.5,
    }
    assert [unit["unit"] for unit in values["probe"]["learning"]] == ["a", "c", "block"]


def test_the_table_says_every_stage_its_sum_and_the_probe(model: Model) -> None:
    table = as_table(as_values("m", Networks(model), stages(), rates()))
    lines = table.splitlines()
    assert lines[0].startswith("m: U-Net of ")
    collected = next(line for line in lines if line.startswith("collect-trajectories"))
    assert collected.split() == ["collect-trajectories", "24", "100", "B", "2", "1.5", "GiB", "22", "s"]
    total = next(line for line in lines if line.startswith("all"))
    assert total.split()[1:3] == [str(24 + 6 + 8 + 8), "14"]
    assert "  float network, fp32, batches of 8 rows: 500 ms per evaluation" in lines
    assert "  layer c: 4000 ms per step of 4 rows, 3 s beside them" in lines
    assert "  search of weight ranges: 1e+06 ns per weight" in lines
    assert not any("scored" in line for line in lines)


def test_what_earlier_runs_took_stands_beside_the_plan(model: Model, tmp_path: Path) -> None:
    """Of all shards and shares; another variant below the same folder is another stage."""
    files = {
        "collect-trajectories/m/0.tsv": 30,
        "collect-trajectories/m/1.tsv": 40,
        "reconstruct/m/t/w/r.tsv": 5,
        "reconstruct-part/m/t/w/r/0_of_2.tsv": 100,
        "reconstruct-part/m/t/w/r/1_of_2.tsv": 110,
        "evaluate/m/other.tsv": 7,
        "generate/m/t/w/r/integer/0.tsv": 1000,
    }
    for name, seconds in files.items():
        file = tmp_path / "times" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t-\t1\n")
    of = {"collect-trajectories": "m", "reconstruct": "m/t/w/r", "generate": "m/t/w/r", "evaluate": "m/t/w/r"}
    planned = [replace(stage, of=of.get(stage.name, "m/t")) for stage in stages()]
    values = as_values("m", Networks(model), planned, rates(), tmp_path)
    found = {row["stage"]: row["measured_seconds"] for row in values["stages"]}
    assert found == dict.fromkeys(found) | {"collect-trajectories": 70, "reconstruct": 215}
    lines = as_table(values).splitlines()
    assert lines[1].split()[-2:] == ["time", "measured"]
    collected = next(line for line in lines if line.startswith("collect"))
    assert collected.split()[-4:] == ["22", "s", "1.17", "min"]
    assert next(line for line in lines if line.startswith("all")).endswith(" 4.75 min")


def test_counts_alone_have_no_times(model: Model) -> None:
    values = as_values("m", Networks(model), stages(), None)
    assert values["probe"] is None
    assert {row["seconds"] for row in values["stages"]} == {None}
    lines = as_table(values).splitlines()
    assert lines[-1] == "counts alone; without --no-probe times are estimated, too"
    assert lines[2].split() == ["collect-trajectories", "24", "100", "B", "2", "1.5", "GiB"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (18_071_234, "18.1 MB"), (1_300_000_000, "1.3 GB"), (5e15, "5,000 TB")],
)
def test_sizes(count: int | float, text: str) -> None:
    assert size(count) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0.04, "0.04 s"), (59, "59 s"), (90, "1.5 min"), (5400, "1.5 h"), (129600, "1.5 d")]
)
def test_durations(count: int | float, text: str) -> None:
    assert duration(count) == text
