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


def test_a_key_that_stands_twice_is_told_in_one_line_without_a_word_of_snakemake(
    tmp_path: Path, package: Path
):
    toy = Toy(tmp_path, package)
    (tmp_path / "config.yaml").write_text("results: a\nresults: b\n")
    status, said = toy.run()
    sentence = (
        "config.yaml is not valid YAML: line 2: the key 'results' stands twice in one place; remove one of "
        "them"
    )
    assert (status, [line for line in said.splitlines() if line.strip()][-1:]) == (1, [sentence])
    assert "Error" not in said
