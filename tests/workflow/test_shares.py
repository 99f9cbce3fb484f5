"""Units divided among several jobs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .toy import CONFIG, REPOSITORY, Toy

pytestmark = pytest.mark.workflow


@pytest.mark.parametrize(("jobs", "planned"), [(1, {}), (2, {"reconstruct_part": 2})])
def test_each_share_of_the_units_is_a_job_and_one_more_puts_them_together(jobs: int, planned: dict[str, int], tmp_path: Path) -> None:
    toy = Toy(tmp_path, REPOSITORY)
    shared = {"fbr": {"method": "fbr_float_inputs", "iterations": 6, "batch_size": 4, "jobs": jobs}}
    (tmp_path / "config.yaml").write_text(json.dumps(CONFIG | {"reconstructions": shared}))
    others = {"convert_checkpoint": 1, "collect_trajectories": 2, "select_calibration": 1, "set_ranges": 1}
    target = "results/toy/tdac/w4a8/fbr/quantized.safetensors"
    assert toy.planned(target) == {**others, **planned, "reconstruct": 1}
