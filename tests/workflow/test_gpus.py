"""What jobs are told of devices, on a machine whose GPUs are only names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from edadm.artifacts.locks import attempt
from edadm.planning.schedule import takes_a_gpu

from .planner import dry_run
from .toy import CONFIG, PATIENCE, REPOSITORY, Toy

pytestmark = pytest.mark.workflow

QUANTIZED = "tdac/w4a8/fbr"
VARIANTS = ["fp32", QUANTIZED, f"{QUANTIZED}/integer", f"{QUANTIZED}/cuda_int8"]
OWN_SETTINGS = ("jobs", "default-resources", "set-resources", "resources", "retries", "nolock")
GPU = ("--workflow-profile", "workflow/profiles/gpu")
WITH_NETWORKS = {
    "collect-trajectories",
    "set-ranges",
    "reconstruct",
    "generate",
    "evaluate",
    "benchmark unet",
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A project with a variant for each kind of device, in which nothing runs."""
    toy = Toy(tmp_path_factory.mktemp("toy"), REPOSITORY)
    run = CONFIG["runs"][0] | {"variants": VARIANTS}
    (toy.folder / "config.yaml").write_text(json.dumps(CONFIG | {"runs": [run]}))
    smi = toy.folder / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text('#!/bin/sh\nfor i in 0 1 2 3; do echo "GPU $i: H200 (UUID: GPU-$i)"; done\n')
    smi.chmod(0o755)
    return toy


def told(toy: Toy, *options: str, gpus: str | None, code: int = 0) -> str:
    """What Snakemake says of a run; `gpus` are those that may be used, None where there is no driver."""
    path = [] if gpus is None else [str(toy.folder / "bin")]
    variables = toy.environment | ({} if gpus is None else {"CUDA_VISIBLE_DEVICES": gpus})
    variables |= {"PATH": ":".join([*path, str(Path(sys.executable).parent), "/usr/bin", "/bin"])}
    if "-n" in options:
        status, said = dry_run(toy.command(*options)[3:], toy.folder, variables)
        assert status == code, said
        return said
    done = subprocess.run(
        toy.command(*options),
        cwd=toy.folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def devices(said: str) -> dict[str, set[str]]:
    """By command the devices that it is told; `cuda_int8` stands for images by that, and so does `integer`."""
    found: dict[str, set[str]] = {}
    for command in re.findall(r"python3 -m edadm (.*)", said):
        name = re.match(r"[a-z-]+(?: unet)?", command)
        backend = re.search(r"--backend[ =](integer|cuda_int8) ", command)
        assert name
        device = re.search(r"--device[ =](\S+)", command)
        key = backend[1] if backend else name[0]
        found.setdefault(key, set()).add(device[1] if device else "none")
    return found


def asked(said: str) -> dict[str, set[int]]:
    """By command how many GPUs its jobs ask for; named as by `devices`."""
    found: dict[str, set[int]] = {}
    for resources, command in re.findall(
        r"resources: (.*)\n(?:\n|.*Shell command: )?(python3 -m edadm .*)", said
    ):
        (count,) = re.findall(r"\bgpu=(\d+)", resources)
        found.setdefault(*devices(command), set()).add(int(count))
    return found


def profile(toy: Toy, name: str) -> str:
    """The folder of a profile without what its plugins ask for, which need not be installed."""
    written = yaml.safe_load((REPOSITORY / "workflow" / "profiles" / name / "config.yaml").read_text())
    kept = {key: value for key, value in written.items() if key in OWN_SETTINGS}
    folder = toy.folder / "profiles" / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(json.dumps(kept))
    return str(folder)


def expected(device: str, **other: str) -> dict[str, set[str]]:
    free = dict.fromkeys(("convert-checkpoint", "select-calibration", "report"), "none")
    computed = dict.fromkeys(WITH_NETWORKS | {"cuda_int8"}, device)
    return {name: {value} for name, value in (free | computed | {"integer": "cpu"} | other).items()}


@pytest.mark.parametrize(
    ("options", "gpus", "device"),
    [
        ((*GPU, "--resources", "gpu=2", "gpu_share=3"), "0,1,2,3", "cuda/3"),
        (
            ("--resources", "gpu_share=2"),
            "GPU-1,GPU-2",
            "auto/2",
        ),  # the profile `default` takes what there is
        (("--resources", "gpu=0"), None, "cpu"),  # though there may be a GPU that `nvidia-smi` does not know
    ],
)
def test_jobs_with_a_network_are_on_gpus_and_no_others(
    options: tuple[str, ...], gpus: str | None, device: str, toy: Toy
) -> None:
    said = told(toy, "-n", "-p", *options, gpus=gpus)
    assert devices(said) == expected(device)
    computed = len(re.findall("--device[ =](?:cuda|auto)", said))
    assert len(re.findall("gpu=1", said)) == computed == (0 if device == "cpu" else 12)


@pytest.mark.parametrize("name", ["slurm", "kubernetes"])
def test_on_a_cluster_jobs_ask_for_a_gpu_if_they_can_use_one(name: str, toy: Toy) -> None:
    said = told(toy, "-n", "-p", "--workflow-profile", profile(toy, name), gpus=None)
    assert devices(said) == expected("cuda")
    using = {key: {int(device == {"cuda"})} for key, device in devices(said).items()}
    assert asked(said) == using
    assert (using["generate"], using["cuda_int8"], using["integer"]) == ({1}, {1}, {0})
    planned = {backend: ("generate", f"toy/{QUANTIZED}/{backend}") for backend in ("integer", "cuda_int8")}
    for key, counts in using.items():  # what `edadm plan --gpus` takes the workflow to do
        assert counts == {int(takes_a_gpu(*planned.get(key, (key, f"toy/{QUANTIZED}"))))} or key == "report"


def test_no_more_jobs_start_than_there_are_places(toy: Toy) -> None:
    lock = toy.results / "toy" / ".run.lock"
    lock.parent.mkdir(parents=True)
    with open(lock, "w") as file:  # so that the run ends before its first job
        assert attempt(file)
        said = told(toy, *GPU, "--resources", "gpu=2", "gpu_share=3", gpus="0,1,2,3", code=2)
    assert re.search(r"Provided resources: .*gpu\D+6\b", said)
    assert "GPUs: GPU 0 (H200, GPU-0), GPU 1 (H200, GPU-1), GPU 2" in said
    assert "; jobs on each at once: 3" in said


def test_a_stage_stays_on_the_cpu_if_the_profile_says_so(toy: Toy) -> None:
    said = told(
        toy, "-n", "-p", *GPU, "--set-resources", "evaluate:gpu=0", "set_ranges:device=cuda:1", gpus="0"
    )
    assert devices(said) == expected("cuda", evaluate="cpu") | {"set-ranges": {"cuda:1"}}


def test_without_a_gpu_commands_look_for_another_make(toy: Toy) -> None:
    assert devices(told(toy, "-n", "-p", gpus=None)) == expected("auto")


def test_what_needs_a_gpu_is_not_started_without(toy: Toy, tmp_path: Path) -> None:
    absent = "there is no GPU here that `nvidia-smi -L` lists and CUDA_VISIBLE_DEVICES allows, and "
    said = told(toy, gpus="", code=2)
    assert f"{absent}'{QUANTIZED}/cuda_int8' needs one; take it off the variants" in said
    other = Toy(tmp_path, REPOSITORY)
    said = told(other, *GPU, gpus=None, code=2)
    assert f"{absent}the profile asks for one; take resources: gpu out of it" in said
    assert not (tmp_path / "results").exists()
