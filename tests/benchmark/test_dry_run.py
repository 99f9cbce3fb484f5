"""What a dry run's time is compared with: as many jobs, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from edadm.benchmark.dry_run import dry_runs, in_shards, stand_ins
from edadm.commands.workflow import PROJECT
from edadm.config.load import load_config
from edadm.config.rules.places import find_inputs
from edadm.errors import EdadmError

PUBLISHED = sorted((PROJECT / "workflow" / "published").glob("*.yaml"))


def test_stand_ins_are_all_the_published_runs_need(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = in_shards(PUBLISHED, images=50_000, shards=500)
    config = load_config(settings)
    assert [run.model for run in config.runs] == [
        "ddim_cifar10",
        "ldm4_bedroom",
        "ldm4_imagenet",
        "ldm8_church",
        "sd14_coco",
    ]
    assert {config.evaluations[run.evaluation].shards for run in config.runs} == {500}
    with pytest.raises(EdadmError, match="there is no file"):
        find_inputs(config)
    stand_ins(config, tmp_path)
    inputs = find_inputs(config)
    assert inputs.prompts["sd14_coco"] == Path("checkpoints/captions_val2014.json")
    assert set(inputs.sources["ldm4_imagenet"]) == {"unet", "autoencoder", "condition"}


def test_a_dry_run_stands_beside_one_of_bare_rules(tmp_path: Path) -> None:
    (church,) = (file for file in PUBLISHED if file.stem == "ldm8_church")
    settings = in_shards([church], images=100, shards=7)
    workflow, bare = dry_runs(["--snakefile", str(PROJECT / "Snakefile")], settings, tmp_path, times=1)
    assert (workflow["name"], bare["name"]) == ("workflow", "bare rules")
    assert bare["jobs"] == 3 * 7 + 3 + 11  # images, scores; 8 jobs before them, speed, report and all after
    assert workflow["jobs"] == bare["jobs"] + 1  # real images are looked at
    assert min(row["seconds"] for row in (workflow, bare)) > 0
    settings["runs"][0]["variants"].append("absent/preset/names")
    with pytest.raises(EdadmError, match="there is no preset 'absent'"):
        next(dry_runs([], settings, tmp_path, times=1))
