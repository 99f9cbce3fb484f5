"""A configuration that cannot be used stops everything before the first job."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .toy import CONFIG, PATIENCE, Toy, job_stats

pytestmark = pytest.mark.workflow


def test_a_misspelt_key_is_named_with_its_neighbour_before_any_job(tmp_path: Path, package: Path):
    toy = Toy(tmp_path, package)
    status, said = toy.run("--config", 'calibrations={"tdac": {"lamda": 0.5}}')
    assert status == 1
    assert "calibrations.tdac.lamda: there is no such setting; did you mean 'lambda'?" in said
    assert "Traceback" not in said
    assert "Job stats" not in said
    assert not toy.results.exists()


def test_absent_weights_stop_everything_with_what_to_put_where(tmp_path: Path, package: Path):
    toy = Toy(tmp_path, package)
    status, said = toy.run("--dry-run", "--config", 'evaluations={"few": {"extractor": "inception"}}')
    assert status == 1
    assert "evaluations.few: extractor 'inception' needs weights, and `extractor_weights` is not set" in said
    assert "Job stats" not in said


def test_a_key_that_stands_twice_is_told_in_one_line_without_a_word_of_snakemake(
    tmp_path: Path, package: Path
):
    toy = Toy(tmp_path, package)
    (tmp_path / "config.yaml").write_text("results: a\nresults: b\n")
    status, said = toy.run("--dry-run")
    sentence = (
        "config.yaml is not valid YAML: line 2: the key 'results' stands twice in one place; remove one of "
        "them"
    )
    assert (status, [line for line in said.splitlines() if line.strip()][-1:]) == (1, [sentence])
    assert "Error" not in said


WITH_A_BACKEND = """
import sys
from edadm.config.backends import BACKENDS, BackendEntry
from snakemake.cli import main
BACKENDS["wood"] = BackendEntry("wood", "toy_backend", "by a toy", ("cpu",), precisions=("fp32",))
main(sys.argv[1:])
"""


def test_a_variant_of_a_registered_backend_is_planned(tmp_path: Path, package: Path):
    toy = Toy(tmp_path, package)
    runs = [CONFIG["runs"][0] | {"variants": ["fp32", "tdac/w4a8/fbr", "tdac/w4a8/fbr/wood"]}]
    (tmp_path / "config.yaml").write_text(json.dumps(CONFIG | {"runs": runs}))
    options = toy.command("--dry-run", "--printshellcmds")[3:]
    done = subprocess.run(
        [sys.executable, "-c", WITH_A_BACKEND, *options],
        cwd=tmp_path,
        env=toy.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    planned = job_stats(said)
    assert (planned["reconstruct"], planned["generate"], planned["evaluate"]) == (1, 3, 3)
    assert "--backend=wood" in said
    assert "--backend=wood" in said
    status, said = toy.run("--dry-run")
    assert status == 1
    assert "runs: 'tdac/w4a8/fbr/wood' is no variant; write fp32, CALIBRATION/BITS/RECONSTRUCTION, or" in said
