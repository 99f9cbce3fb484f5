"""Whether a file of an earlier version can be taken over."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from edadm.adoption.earlier import KEPT, REMADE, Command, difference, parsed
from edadm.adoption.records import Job, newer_input, planned_jobs, recorded_command, snakemake
from edadm.artifacts import intact, read_tensors, reading
from edadm.artifacts.digest import safetensors_digest
from edadm.config.rules.timesteps import visited
from edadm.config.schema import Evaluation, Model
from edadm.config.sharding.shares import share
from edadm.deploy.checkpoint import load_quantized
from edadm.errors import EdadmError
from edadm.sampling.shards import open_whole


def verdicts(*options: str) -> Iterator[tuple[Job, str | None]]:
    """Jobs that Snakemake would run, each after those it waits for, with the reason against taking it over.

    Args:
        options: what else Snakemake is told.

    Raises:
        EdadmError: Snakemake failed.
    """
    planned = planned_jobs(snakemake(*options, "--dry-run", "--printshellcmds", "--nocolor"))
    left = {output for job in planned for output in job.outputs}
    for job in planned:
        reason = refusal(job, left)
        if reason is None:
            left -= set(job.outputs)
        yield job, reason


def refusal(job: Job, left: set[str]) -> str | None:
    """Why the outputs of a job cannot be taken over; None if they can.

    Args:
        job: what Snakemake would run.
        left: files that will be made again.
    """
    now = parsed(job.command)
    if now.stage not in KEPT + REMADE:
        return f"`edadm {now.stage}` says more than it did"
    if others := sorted(left & set(job.inputs)):
        return f"{others[0]}, from which it is made, will be made again"
    if absent := [output for output in job.outputs if not Path(output).exists()]:
        return f"{absent[0]} is not there"
    before = [recorded_command(output) for output in job.outputs]
    if before[0] is None:
        return "Snakemake has no record of how it was made"
    if now.stage in REMADE:
        return _differs_from_new(job)
    if since := newer_input(job.outputs[0]):
        return f"{since}, from which it was made, has changed since"
    return difference(parsed(before[0]), now) or _damage(now, Path(job.outputs[0]))


def _differs_from_new(job: Job) -> str | None:
    """Why the tensors of a quick stage are not those that it makes today."""
    words = shlex.split(job.command.partition(" 2>&1")[0])
    with tempfile.TemporaryDirectory() as folder:
        new = {output: str(Path(folder) / Path(output).name) for output in job.outputs}
        command = [sys.executable, *(new.get(word, word) for word in words[1:])]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            return done.stderr.strip().splitlines()[-1]
        try:
            same = safetensors_digest(Path(job.outputs[0])) == safetensors_digest(Path(new[job.outputs[0]]))
        except (OSError, ValueError, KeyError, EdadmError) as error:
            return f"it is damaged ({error})"
    return None if same else f"`edadm {words[3]}` makes another one today"


def _damage(command: Command, output: Path) -> str | None:
    """Why an artifact of a long stage cannot be read, or is not what it should be."""
    try:
        if command.stage == "collect-trajectories":
            return _of_trajectories(
                output, Model.model_validate_json(command.options["model"]), int(command.options["shard"])
            )
        if command.stage == "generate":
            settings = Evaluation.model_validate_json(command.options["evaluation"])
            return _of_images(output, len(share(settings, int(command.options["shard"]))))
        if command.stage == "reconstruct":
            load_quantized(output, torch.device("cpu"))
            return None
        grids = read_tensors(output, command.stage).values()
        return (
            None
            if all(torch.isfinite(grid).all() for grid in grids)
            else "it holds numbers that are not finite"
        )
    except Exception as error:  # whatever a damaged file does to its reader
        return f"it is damaged ({str(error).strip().partition(chr(10))[0] or type(error).__name__})"


def _of_trajectories(output: Path, model: Model, shard: int) -> str | None:
    """Whether a store is of its runs, complete, and finite."""
    store = open_whole(output)[0]
    if store.group["timesteps"][:].tolist() != visited(model.sampler, model.schedule.timesteps):
        return "it was recorded at other timesteps"
    if store.runs != len(share(model.trajectories, shard)):
        return "it holds another number of runs"
    for name in store.arrays():
        array = store.group[name]
        if array.dtype.kind == "f" and not all(
            np.isfinite(array[row]).all() for row in range(array.shape[0])
        ):
            return f"it is damaged ({name} holds numbers that are not finite)"
    return None


def _of_images(output: Path, images: int) -> str | None:
    intact(output)
    with reading(output, what="images"):
        found = np.load(output, mmap_mode="r", allow_pickle=False)
    if found.ndim != 4 or found.dtype != np.uint8:
        return "it holds no images"
    return None if len(found) == images else f"it holds {len(found)} images, not {images}"
