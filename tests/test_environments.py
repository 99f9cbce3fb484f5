"""Environments other than the quick start's say what requirements.lock says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text()
PINS = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", LOCK, re.MULTILINE))
CONDA = yaml.safe_load((ROOT / "envs/edadm.yaml").read_text())


def made(kind: str) -> str:
    command = [sys.executable, str(ROOT / ".ci/environment.py"), kind]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_environment_of_conda_has_the_pins_of_the_lock_and_no_default_channel() -> None:
    *packages, pip = CONDA["dependencies"]
    pins = [entry.partition(" ; ")[0].split("==") for entry in pip["pip"]]
    assert dict(pins) == PINS
    assert len(PINS) > 100
    assert all(re.fullmatch(r"(python|pip)=[\d.]+", package) for package in packages)
    assert CONDA["channels"] == ["conda-forge", "nodefaults"]


def test_it_is_as_its_script_makes_it_and_names_no_other_file() -> None:
    """Snakemake copies it to a folder of its own: `-r ../requirements.lock` in it would name nothing."""
    assert made("conda") == (ROOT / "envs/edadm.yaml").read_text()
    assert not any(entry.startswith("-") for entry in CONDA["dependencies"][-1]["pip"])


def test_without_cuda_there_is_everything_else_with_its_hashes() -> None:
    lines = made("cpu")
    pins = dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", lines, re.MULTILINE))
    absent = PINS.keys() - pins.keys()
    assert {"nvidia-cublas", "nvidia-cudnn-cu13"} <= absent
    assert all(name.startswith(("nvidia-", "cuda-")) for name in absent)
    assert pins == {name: version for name, version in PINS.items() if name not in absent}
    without = re.findall(r"^([A-Za-z0-9._-]+)==[^\\\\\n]*$", lines, re.MULTILINE)
    assert without == ["torch", "torchvision"]


@pytest.mark.parametrize("needed", ["--require-hashes", "requirements.lock", "uv==0.13.9"])
def test_the_image_installs_the_lock_as_the_quick_start_does(needed: str) -> None:
    recipe, readme = (ROOT / "Dockerfile").read_text(), (ROOT / "README.md").read_text()
    assert needed in recipe
    assert needed in readme


def test_the_image_gets_every_file_that_the_package_is_made_from() -> None:
    copied = {
        word
        for line in re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.M)
        for word in line.split()
    }
    linked = {link.resolve().relative_to(ROOT).parts[0] for link in (ROOT / "edadm/project").iterdir()}
    assert linked | {"edadm", "pyproject.toml", "README.md", "LICENSE"} <= copied
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert not copied & set(ignored)


def test_clusters_get_the_same_gpus() -> None:
    profiles = ROOT / "workflow/profiles"
    slurm, kubernetes = (
        yaml.safe_load((profiles / name / "config.yaml").read_text()) for name in ("slurm", "kubernetes")
    )
    assert kubernetes["resources"]["gpu"] == slurm["resources"]["gpu"] == 100
    assert kubernetes["default-resources"] == {"gpu_manufacturer": "nvidia", "scale": 0}
    assert (kubernetes["retries"], kubernetes["nolock"]) == (slurm["retries"], slurm["nolock"])
