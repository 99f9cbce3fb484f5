"""Configurations whose commands are longer than a command line takes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from .toy import CONFIG, Toy, commands_of

pytestmark = pytest.mark.workflow

LONGEST = 128 * 1024  # Linux: bytes of one argument, as which Snakemake gives a shell its command


def with_config(toy: Toy, **changed: Any) -> None:
    """Writes a configuration that differs from the toy's."""
    (toy.folder / "config.yaml").write_text(json.dumps(CONFIG | changed))


def last_command(toy: Toy, *options: str) -> list[str]:
    """What the last command of a dry run is told in all, after all commands were found to be short."""
    status, said = toy.run("--dry-run", "--printshellcmds", *options)
    assert status == 0, said
    assert max(map(len, re.findall("python3 -m edadm .+", said))) < 2000
    return commands_of(said, toy.folder)[-1]


def test_images_of_5000_shards_are_scored_by_a_short_command(tmp_path: Path, package: Path) -> None:
    toy = Toy(tmp_path, package)
    with_config(toy, evaluations={"few": {"images": 5000, "shards": 5000}})
    variant = "results/toy/tdac/w4a8/fbr"
    shards = [f"{folder}/samples/{at}.npy" for folder in (variant, "results/toy/fp32") for at in range(5000)]
    for file in shards:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    told = last_command(toy, "--allowed-rules", "evaluate", "--", f"{variant}/metrics.json")
    assert told[3] == "evaluate"
    assert sum(map(len, told)) > LONGEST
    assert told[4:10_004] == [*shards[:5000], *(f"--reference={file}" for file in shards[5000:])]


@pytest.mark.long  # the next test has a longer configuration, and runs
def test_300_presets_are_planned_with_short_commands(tmp_path: Path, package: Path) -> None:
    toy = Toy(tmp_path, package)
    presets = {f"fbr{number}": CONFIG["reconstructions"]["fbr"] for number in range(300)}
    variants = ["fp32", *(f"tdac/w4a8/{name}" for name in presets)]
    with_config(toy, runs=[CONFIG["runs"][0] | {"variants": variants}], reconstructions=presets)
    told = last_command(toy)
    assert told[3] == "report"
    assert list(json.loads(told[told.index("--config") + 1])["reconstructions"]) == sorted(presets)


def test_a_report_takes_a_configuration_that_no_command_line_would(reference: Toy, tmp_path: Path) -> None:
    shutil.copytree(reference.folder, tmp_path / "toy", symlinks=True)
    toy = reference.at(tmp_path / "toy")
    betas = [1e-4 + step * 1.23456789e-7 for step in range(8000)]
    schedule = {"kind": "trained", "timesteps": len(betas), "betas": betas}
    with_config(toy, models={"toy": CONFIG["models"]["toy"] | {"schedule": schedule}})
    pages = toy.results / "report"
    before = {page.name: page.read_bytes() for page in pages.iterdir()}
    shutil.rmtree(pages)
    only = ("--allowed-rules", "report", "--", "results/report/index.html")
    told = last_command(toy, *only)
    assert told[3] == "report"
    assert sum(map(len, told)) > LONGEST
    status, said = toy.run(*only)
    assert status == 0, said
    assert {page.name: page.read_bytes() for page in pages.iterdir()}.keys() == before.keys()
    assert (pages / "metrics.csv").read_bytes() == before["metrics.csv"]
