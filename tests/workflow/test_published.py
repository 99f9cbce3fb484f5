"""The run files of the published models, as dry runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .toy import REPOSITORY, commands_of

pytestmark = pytest.mark.workflow

INCEPTION = "checkpoints/pt_inception-2015-12-05-6726825d.pth"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The workflow's files in a folder of their own, without any checkpoint."""
    for name in ("workflow", "envs"):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    return tmp_path


def dry_run(project: Path, model: str, *targets: str) -> tuple[int, str]:
    """Exit status of a dry run on four cores and all it says, shell commands included."""
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-n",
        "-p",
        "--configfile",
        f"workflow/published/{model}.yaml",
        "--cores",
        "4",
        "--resources",
        "gpu=0",
    ]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1"}
    done = subprocess.run(
        [*command, "--", *targets], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


def put(project: Path, *files: str) -> None:
    """Placeholders: a dry run looks whether files are there, not into them."""
    for file in files:
        (project / file).parent.mkdir(parents=True, exist_ok=True)
        (project / file).touch()


def test_one_target_of_a_conditional_model_gets_its_parts(project: Path) -> None:
    put(project, "checkpoints/cin256-v2/model.ckpt", INCEPTION, "data/imagenet_train/n01440764/0.png")
    target = "results/ldm4_imagenet/seed_imagenet/imagenet_w4a8/seed_imagenet_w4/metrics.json"
    status, said = dry_run(project, "ldm4_imagenet", target)
    assert status == 0, said
    commands = re.findall(r"python3 -m edadm (.+)", said)
    stages = [command.split()[0] for command in commands]
    assert sorted(stages) == sorted(
        ["convert-checkpoint"] * 3
        + ["collect-trajectories", "select-calibration", "set-ranges", "reconstruct", "generate"]
        + ["generate"] * 7
        + ["extract-features"] * 4
        + ["reference-statistics", "evaluate"]
    )
    parts = {
        part: f"--{part}=results/ldm4_imagenet/fp32/{part}.safetensors"
        for part in ("condition", "autoencoder")
    }
    for stage, command in zip(stages, commands, strict=True):
        assert (parts["condition"] in command) == (stage in ("collect-trajectories", "generate")), command
        assert (parts["autoencoder"] in command) == (stage == "generate"), command


def test_without_its_files_a_run_says_which_and_stops(project: Path) -> None:
    status, said = dry_run(project, "sd14_coco")
    assert status == 1
    assert "models.sd14_coco.checkpoint: there is no file checkpoints/sd-v1-4.ckpt; get it from" in said
    assert "Traceback" not in said
    put(project, "checkpoints/sd-v1-4.ckpt")
    captions = {"annotations": [{"caption": str(number)} for number in range(10_000)]}
    (project / "checkpoints" / "captions_val2014.json").write_text(json.dumps(captions))
    status, said = dry_run(project, "sd14_coco")
    assert status == 1
    assert (
        "evaluations.coco_published: clip_score needs weights, and there is no file "
        "checkpoints/clip_vit_l_14.safetensors" in said
    )
    put(project, "checkpoints/clip_vit_l_14.safetensors", INCEPTION, "data/coco_val2014/0.jpg")
    status, said = dry_run(project, "sd14_coco")
    assert status == 0, said
    assert said.count("python3 -m edadm reconstruct ") == 2
    assert said.count("python3 -m edadm write-prompts ") == 1
    words = [word for command in commands_of(said, project) for word in command]
    assert words.count("--prompts=results/sd14_coco/prompts.json") == 3


@pytest.mark.parametrize(
    ("model", "files", "shards", "parts"),
    [
        ("ddim_cifar10", ("ema_cifar10.ckpt",), 4, 1),
        ("ldm4_bedroom", ("lsun_beds256/model.ckpt", "../data/lsun_bedroom_train/0.jpg"), 12, 2),
        ("ldm8_church", ("lsun_churches256/model.ckpt", "../data/lsun_church_train/0.jpg"), 16, 2),
    ],
)
def test_the_other_models_make_both_precisions(
    project: Path, model: str, files: tuple[str, ...], shards: int, parts: int
) -> None:
    put(project, INCEPTION, *(f"checkpoints/{file}" for file in files))
    status, said = dry_run(project, model)
    assert status == 0, said
    counts = {
        "convert-checkpoint": parts,
        "set-ranges": 2,
        "reconstruct": 2,
        "generate": 3 * shards,
        "extract-features": 3 * 4,
        "evaluate": 3,
    }
    for stage, count in counts.items():
        assert said.count(f"python3 -m edadm {stage} ") == count, stage
