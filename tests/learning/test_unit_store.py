"""Finished units on disk."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edadm.learning.engine import UnitReport
from edadm.learning.unit_store import FinishedUnit, FolderUnitStore, write_losses
from edadm.networks.units.unit import Unit

UNIT = Unit("up_blocks.0.resnets.1", "res_block", ("a", "b", "c"))
REPORT = UnitReport(
    0.1 + 0.2, 1e-17, 2 / 3, held_out_before=None, held_out_after=1 / 7, flipped=0.25, scale_drift=0.0
)


def test_what_is_put_into_the_store_comes_back_exactly(tmp_path: Path) -> None:
    codes = {
        "conv1": torch.randint(
            16, (4, 3, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
    }
    codes["conv2"] = codes["conv1"].contiguous(memory_format=torch.channels_last)
    scales = {"conv1.input_quantizer": torch.tensor([1 / 3]), "split": torch.tensor([0.1, 0.2])}
    unit_store = FolderUnitStore(tmp_path)
    unit_store.put(3, UNIT, FinishedUnit(codes, scales, {"conv1": torch.ones(4)}, REPORT))
    found = FolderUnitStore(tmp_path).get(3, UNIT)
    assert found is not None
    assert found.report == REPORT
    assert found.codes.keys() == codes.keys()
    assert all(torch.equal(found.codes[name], codes[name]) for name in codes)
    assert all(torch.equal(found.scales[name], scales[name]) for name in scales)
    assert torch.equal(found.biases["conv1"], torch.ones(4))


def test_an_absent_unit_is_absent(tmp_path: Path) -> None:
    unit_store = FolderUnitStore(tmp_path)
    unit_store.put(3, UNIT, FinishedUnit({"a": torch.zeros(1, dtype=torch.uint8)}, {}, {}, REPORT))
    assert unit_store.get(4, UNIT) is None
    assert unit_store.get(3, Unit("conv_out", "layer", ("conv_out",))) is None


def test_units_of_other_jobs_are_found_too(tmp_path: Path) -> None:
    finished = FinishedUnit({"a": torch.zeros(1, dtype=torch.uint8)}, {}, {}, REPORT)
    FolderUnitStore(tmp_path / "part").put(3, UNIT, finished)
    unit_store = FolderUnitStore(tmp_path / "own", tmp_path / "none", tmp_path / "part")
    found = unit_store.get(3, UNIT)
    assert found is not None
    assert found.report == REPORT
    assert unit_store.get(4, UNIT) is None


@pytest.mark.parametrize("content", [b"", b"torn", None])
def test_a_torn_unit_counts_as_none_and_is_written_anew(content: bytes | None, tmp_path: Path) -> None:
    finished = FinishedUnit({"a": torch.zeros(1, dtype=torch.uint8)}, {}, {}, REPORT)
    unit_store = FolderUnitStore(tmp_path / "own", tmp_path / "part")
    unit_store.put(3, UNIT, finished)
    (path,) = (tmp_path / "own").iterdir()
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)
    assert unit_store.get(3, UNIT) is None
    FolderUnitStore(tmp_path / "part").put(3, UNIT, finished)
    assert unit_store.get(3, UNIT) is not None  # another job's is whole
    unit_store.put(3, UNIT, finished)
    assert FolderUnitStore(tmp_path / "own").get(3, UNIT) is not None


def test_a_unit_whose_report_is_of_another_version_counts_as_none(tmp_path: Path) -> None:
    save_file(
        {"codes:a": torch.zeros(1)},
        tmp_path / "003_up_blocks.0.resnets.1.safetensors",
        {"report": '{"loss": 1}'},
    )
    assert FolderUnitStore(tmp_path).get(3, UNIT) is None


def test_a_half_written_unit_does_not_count(tmp_path: Path) -> None:
    (tmp_path / ".003_up_blocks.0.resnets.1.safetensors.partial").write_bytes(b"half")
    assert FolderUnitStore(tmp_path).get(3, UNIT) is None


def test_the_table_of_losses_has_a_row_per_unit_with_exact_numbers(tmp_path: Path) -> None:
    write_losses(
        tmp_path / "losses.csv", [(UNIT, REPORT), (Unit("conv_out", "layer", ("conv_out",)), REPORT)]
    )
    rows = list(csv.DictReader((tmp_path / "losses.csv").open()))
    assert [row["unit"] for row in rows] == ["up_blocks.0.resnets.1", "conv_out"]
    assert [row["kind"] for row in rows] == ["res_block", "layer"]
    assert [row["layers"] for row in rows] == ["3", "1"]
    assert float(rows[0]["before"]) == REPORT.before
    assert float(rows[0]["soft"]) == REPORT.soft
    assert rows[0]["held_out_before"] == ""
    assert float(rows[0]["held_out_after"]) == REPORT.held_out_after
