"""Configurations whose commands are longer than a command line takes."""

from __future__ import annotations

import json
import os
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
    words = commands_of(said, toy.folder)[-1]
    assert sum(map(len, words)) > LONGEST
    return words


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
    assert told[4:10_004] == [*shards[:5000], *(f"--reference={file}" for file in shards[5000:])]


def test_a_report_takes_a_configuration_of_300_presets(reference: Toy, tmp_path: Path) -> None:
    """All variants are the one of the reference by another name."""
    shutil.copytree(reference.folder, tmp_path / "toy", symlinks=True, copy_function=os.link)
    toy = reference.at(tmp_path / "toy")
    presets = {"calibrations": "tdac", "bits": "w4a8", "reconstructions": "fbr"}
    many = {
        kind: {f"{name}{number}": CONFIG[kind][name] for number in range(300)}
        for kind, name in presets.items()
    }
    names = ["/".join(each) for each in zip(*many.values(), strict=True)]
    for name in names:
        calibration, bits, _ = name.split("/")
        made = toy.results / "toy" / calibration
        shutil.copytree(toy.results / "toy/tdac", made, copy_function=os.link)
        (made / "w4a8/fbr").rename(made / "w4a8" / name.split("/")[2])
        (made / "w4a8").rename(made / bits)
    (toy.folder / "config.yaml").unlink()  # which is the reference's
    with_config(toy, runs=[CONFIG["runs"][0] | {"variants": ["fp32", *names]}], **many)
    for page in (toy.results / "report").iterdir():
        page.unlink()
    only = ("--allowed-rules", "report", "benchmark", "--", "results/report/index.html")
    assert last_command(toy, *only)[3] == "report"
    (toy.results / "toy/speed.json").touch()
    status, text = toy.run("--rerun-triggers", "mtime", *only)
    assert status == 0, text
    assert all(name in toy.page() for name in names[::37])
