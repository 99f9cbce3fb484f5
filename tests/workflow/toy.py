"""A small project in a folder of its own, and Snakemake runs of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from safetensors.torch import save_file

from edadm.config.inputs.arguments import expanded
from edadm.networks.build import build_network
from edadm.networks.layouts.ermongroup import from_diffusers
from edadm.networks.settings.architecture import Architecture

from ..conftest import reinitialise
from ..report.times import without_times
from .planner import dry_run

REPOSITORY = Path(__file__).parents[2]
PATIENCE = 600.0
ARCHITECTURE = {
    "image_size": 32,  # what the bundled feature extractor wants
    "channels": 16,
    "multipliers": [1, 2],
    "blocks_per_level": 1,
    "attention_resolutions": [16],
    "norm_groups": 8,
}
CONFIG: dict[str, Any] = {
    "results": "results",
    "runs": [{"model": "toy", "variants": ["fp32", "tdac/w4a8/fbr"], "evaluation": "few"}],
    "models": {
        "toy": {
            "checkpoint": "toy.safetensors",
            "architecture": ARCHITECTURE,
            "sampler": {"steps": 6, "spacing": "quadratic"},
            "trajectories": {"count": 16, "batch_size": 2, "feature_rows": 4, "shards": 2},
        }
    },
    "calibrations": {"tdac": {"selector": "tdac", "size": 8, "held_out": 2, "lambda": 1.2, "radius": 0.3}},
    "bits": {"w4a8": {"weights": 4, "activations": 8, "range_batch_size": 4, "range_bins": 1024}},
    "reconstructions": {"fbr": {"method": "fbr", "iterations": 6, "batch_size": 4}},
    "evaluations": {"few": {"images": 8, "batch_size": 4, "shards": 1}},
}
MEASURED = ("speed.json", "metrics.csv", "metrics.md", "index.html")  # these hold times


def write_checkpoint(path: Path) -> None:
    """Random weights in the layout of ermongroup/ddim."""
    unet = build_network(Architecture.model_validate(ARCHITECTURE))
    reinitialise(unet, 0)
    save_file({name: tensor.contiguous() for name, tensor in from_diffusers(unet.state_dict()).items()}, path)


def copy_package(target: Path, source: Path = REPOSITORY) -> Path:
    """A copy of the package, for PYTHONPATH; its code may be changed. Bundled files stay where they are."""
    shutil.copytree(
        source / "edadm", target / "edadm", ignore=shutil.ignore_patterns("__pycache__", "bundled")
    )
    (target / "edadm" / "bundled").symlink_to(REPOSITORY / "edadm" / "bundled")
    return target


@dataclass
class Run:
    """A Snakemake process, the first of a session of its own, and what it says."""

    process: subprocess.Popen
    log: Path

    def text(self) -> str:
        """All it has said so far."""
        return self.log.read_text(errors="replace")

    def wait(self) -> int:
        """Its exit status."""
        return self.process.wait(timeout=PATIENCE)

    def until(self, happened: Callable[[], Any], pause: float = 0.005) -> Any:
        """Looks every few milliseconds whether something has happened, and returns it."""
        end = time.monotonic() + PATIENCE
        while not (found := happened()):
            assert self.process.poll() is None, f"snakemake ended before it happened:\n{self.text()}"
            assert time.monotonic() < end, f"it did not happen within {PATIENCE:.0f} s:\n{self.text()}"
            time.sleep(pause)
        return found

    def members(self) -> list[psutil.Process]:
        """Snakemake and all its jobs."""
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (ProcessLookupError, PermissionError, psutil.NoSuchProcess):
                continue
        return found

    def kill_all(self) -> None:
        """Ends Snakemake and its jobs at once; none of them can tidy up."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=PATIENCE)
        end = time.monotonic() + 10
        while left := self.members():
            assert time.monotonic() < end, f"outside the process group: {left}"
            time.sleep(0.01)


class Toy:
    """The workflow's files, a checkpoint and a configuration in `folder`; rules run the package at `package`."""

    def __init__(self, folder: Path, package: Path):
        self._at(folder, package)
        shutil.copytree(REPOSITORY / "workflow", folder / "workflow")
        shutil.copytree(REPOSITORY / "envs", folder / "envs")
        shutil.copy(REPOSITORY / "Snakefile", folder)
        (folder / "config.yaml").write_text(json.dumps(CONFIG))  # JSON is YAML
        write_checkpoint(folder / "toy.safetensors")

    def _at(self, folder: Path, package: Path) -> None:
        self.folder, self.package = folder, package
        self.results = folder / "results"
        self._runs = 0

    def at(self, folder: Path) -> Toy:
        """A copy of this project that lies in `folder` already."""
        other = Toy.__new__(Toy)
        other._at(folder, self.package)
        return other

    @property
    def environment(self) -> dict[str, str]:
        """Variables for commands in this folder."""
        return os.environ | {"PYTHONPATH": str(self.package), "HF_HUB_OFFLINE": "1"}

    def command(self, *options: str) -> list[str]:
        """The command line of a Snakemake run."""
        profile = (
            []
            if "--workflow-profile" in options
            else ["--workflow-profile", "workflow/profiles/default", "--cores", "2"]
        )
        return [sys.executable, "-m", "snakemake", *profile, *options]

    def start(self, *options: str) -> Run:
        """A Snakemake run that goes on by itself."""
        self._runs += 1
        log = self.folder / f"snakemake{self._runs}.log"
        with open(log, "w") as file:
            process = subprocess.Popen(
                self.command(*options),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Run(process, log)

    @contextmanager
    def started(self, *options: str) -> Iterator[Run]:
        """A run of which nothing is left after the block."""
        run = self.start(*options)
        try:
            yield run
        finally:
            if run.process.poll() is None:
                run.kill_all()

    def run(self, *options: str) -> tuple[int, str]:
        """A whole Snakemake run: its exit status and what it said."""
        if "--dry-run" in options:
            return dry_run(self.command(*options)[3:], self.folder, self.environment)
        with self.started(*options) as run:
            return run.wait(), run.text()

    def planned(self, *options: str, package: Path | None = None) -> dict[str, int]:
        """How many jobs of which rule a run would start."""
        environment = self.environment | ({"PYTHONPATH": str(package)} if package else {})
        status, said = dry_run(self.command("--dry-run", *options)[3:], self.folder, environment)
        assert status == 0, said
        assert ("Nothing to be done" in said) != ("Job stats" in said), said
        return job_stats(said)

    def artifacts(self) -> dict[str, bytes]:
        """Every file below the results folder with its content, but for locks and those that hold times."""
        named = (path for path in self.results.rglob("*") if path.is_file() and path.suffix != ".lock")
        files = (path for path in named if path.name not in MEASURED)
        named = {str(path.relative_to(self.results)): path for path in files}
        return {
            name: path.read_bytes() for name, path in sorted(named.items()) if not name.startswith("times/")
        }

    def page(self) -> str:
        """The report without its times."""
        return without_times((self.results / "report" / "index.html").read_text())


def commands_of(text: str, folder: Path) -> list[list[str]]:
    """The commands that Snakemake printed, as words, those from files in their place."""
    words = [shlex.split(line.partition(" 2>&1")[0]) for line in re.findall(r"python3 -m edadm .+", text)]
    return [
        expanded([f"@{folder / each[1:]}" if each[0] == "@" else each for each in line]) for line in words
    ]


def job_stats(text: str) -> dict[str, int]:
    """The table of jobs that Snakemake prints before it starts, without the target and the total."""
    tables = re.findall(r"Job stats:\njob +count\n[- ]+\n(.*?)\n\n", text, re.DOTALL)
    rows = [line.split() for line in tables[0].splitlines()] if tables else []
    return {rule: int(count) for rule, count in rows if rule not in ("all", "total")}
