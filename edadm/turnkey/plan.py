"""What a run will cost, in a few lines, and refusals where it cannot end well."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from edadm.console import duration, gib, size
from edadm.errors import EdadmError
from edadm.planning.plan import stages_of
from edadm.stages.cost.networks import Networks
from edadm.stages.cost.work import Cost
from edadm.turnkey.known import RECIPES
from edadm.turnkey.project import Project

SPARE = 2**26  # bytes on the disk for the report, logs and records


def plan_of(project: Project, on_gpu: bool, probe: bool, variables: Mapping[str, str]) -> list[str]:
    """What the run will cost, as lines.

    Args:
        project: the output folder as it is to be.
        on_gpu: whether it computes on a GPU, whose memory its jobs look at themselves.
        probe: whether times are estimated, by `edadm plan` in a process of its own, which gives its GPU back.
        variables: of that process.

    Raises:
        EdadmError: the disk or the memory is too small, or the probe failed.
    """
    config, name = project.config(), project.source.name
    run = next(run for run in config.runs if run.model == name)
    model, evaluation = config.models[name], config.evaluations[run.evaluation]
    networks = Networks(model)
    stages = stages_of(run, config, networks)
    disk = sum(stage.disk for stage in stages) + _copied(project) + SPARE
    largest = max(stages, key=lambda stage: stage.memory.needed)
    _refuse_disk(project.folder, disk)
    if not on_gpu:
        _refuse_memory(largest)
    where = "a GPU" if on_gpu else "the CPU"
    needed = f"{gib(largest.memory.needed)} of memory, {size(disk)} on the disk"
    lines = [
        f"{name}: a network of {networks.parameters:,} parameters; {project.recipe}: "
        f"{RECIPES[project.recipe].description}",
        f"learns from {model.trajectories.count} sampler runs of {model.sampler.steps} steps; compares "
        f"{evaluation.images} images with full precision's",
    ]
    if not probe:
        return [*lines, f"on {where}: {needed}"]
    took = _seconds(project.text, variables)
    return [*lines, f"on {where}: about {duration(took)} where nothing is done yet, {needed}"]


def _seconds(settings: str, variables: Mapping[str, str]) -> float:
    """An estimate of all stages, on the device that jobs would have."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "quantize.yaml"
        file.write_text(settings, encoding="utf-8")
        command = [sys.executable, "-m", "edadm", "plan", "--json", "--config", str(file)]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=folder,
            env=os.environ | variables,
        )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["`edadm plan` ended without a word"]
        raise EdadmError(said[-1].removeprefix("edadm: "))
    rows = [stage["seconds"] for plan in json.loads(done.stdout) for stage in plan["stages"]]
    return float(sum(seconds or 0.0 for seconds in rows))


def _copied(project: Project) -> int:
    """Bytes of the pipeline's other parts, which are copied beside the quantized network."""
    from edadm.turnkey.results import parts_of

    return sum(file.stat().st_size for file in parts_of(project.source.pipeline))


def _refuse_disk(folder: Path, needed: int) -> None:
    there = next(place for place in (folder, *folder.parents) if place.is_dir())
    if (free := shutil.disk_usage(there).free) < needed:
        raise EdadmError(
            f"{folder} has room for {size(free)}, and the run writes {size(needed)}; free some, or name a "
            "folder on another disk by --output"
        )


def _refuse_memory(largest: Cost) -> None:
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if there < largest.memory.needed:
        raise EdadmError(
            f"this machine has {gib(there)} of memory, and {largest.name} needs "
            f"{gib(largest.memory.needed)}; use a larger one, or one with a GPU"
        )
