"""A configuration that cannot be used stops everything before the first job."""

from __future__ import annotations

from pathlib import Path

import pytest

from .toy import Toy

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
    status, said = toy.run("--config", 'evaluations={"few": {"extractor": "inception"}}')
    assert status == 1
    assert "evaluations.few: extractor 'inception' needs weights, and `extractor_weights` is not set" in said
    assert "Job stats" not in said
