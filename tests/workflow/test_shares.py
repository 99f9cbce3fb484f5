"""Units divided among several jobs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edadm.config.schema import Reconstruction

from .toy import CONFIG, REPOSITORY, Toy, job_stats

pytestmark = pytest.mark.workflow


@pytest.mark.parametrize(("jobs", "planned"), [(1, {}), (2, {"reconstruct_part": 2})])
def test_each_share_of_the_units_is_a_job_and_one_more_puts_them_together(
    jobs: int, planned: dict[str, int], tmp_path: Path
) -> None:
    toy = Toy(tmp_path, REPOSITORY)
    shared = {"fbr": {"method": "fbr_float_inputs", "iterations": 6, "batch_size": 4, "jobs": jobs}}
    (tmp_path / "config.yaml").write_text(json.dumps(CONFIG | {"reconstructions": shared}))
    others = {"convert_checkpoint": 1, "collect_trajectories": 2, "select_calibration": 1, "set_ranges": 1}
    target = "results/toy/tdac/w4a8/fbr/quantized.safetensors"
    assert toy.planned(target) == {**others, **planned, "reconstruct": 1}


def test_another_number_of_jobs_reruns_nothing_that_is_finished(tmp_path: Path) -> None:
    """Placeholders for all files, of which Snakemake is told that they are finished."""
    toy, folder, target = (
        Toy(tmp_path, REPOSITORY),
        tmp_path / "results/toy",
        "results/toy/tdac/w4a8/fbr/quantized.safetensors",
    )
    settings = {"method": "fbr_float_inputs", "iterations": 6, "batch_size": 4, "jobs": 2}

    def configure(**changes: int) -> None:
        (tmp_path / "config.yaml").write_text(
            json.dumps(CONFIG | {"reconstructions": {"fbr": settings | changes}})
        )

    configure()
    for store in (
        "trajectories/0.zarr",
        "trajectories/1.zarr",
        "tdac/w4a8/fbr/units/0_of_2",
        "tdac/w4a8/fbr/units/1_of_2",
    ):
        (folder / store).mkdir(parents=True)
    (folder / "fp32").mkdir()
    for file in (
        "fp32/unet.safetensors",
        "tdac/calibration.safetensors",
        "tdac/selection.json",
        "tdac/w4a8/ranges.safetensors",
    ):
        (folder / file).write_text(file)
    (folder / "tdac/w4a8/fbr/losses.csv").write_text("losses")
    made = Reconstruction.model_validate(settings).model_dump(mode="json")
    save_file(
        {"x": torch.zeros(1)},
        tmp_path / target,
        {"edadm": json.dumps({"provenance": {"reconstruction": made}})},
    )
    status, said = toy.run("--touch", target)
    assert status == 0, said
    assert job_stats(said)["reconstruct_part"] == 2
    assert toy.planned(target) == {}
    for jobs in (4, 1):
        configure(jobs=jobs)
        assert toy.planned(target) == {}
    configure(jobs=4, iterations=7)
    assert toy.planned(target) == {"reconstruct_part": 4, "reconstruct": 1}
