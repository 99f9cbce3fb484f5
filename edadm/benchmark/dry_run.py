"""A dry run of the published runs in thousands of shards, beside one of as many bare rules."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edadm.config.inputs.settings import read_settings
from edadm.config.load import load_config
from edadm.config.schema import Config
from edadm.errors import EdadmError

BARE = Path(__file__).with_name("bare.smk")


def in_shards(runs: list[Path], images: int, shards: int) -> dict[str, Any]:
    """The settings of run files together, their evaluations with so many images in so many shards."""
    settings: dict[str, Any] = {"runs": [], "evaluations": {}}
    for file in runs:
        for run in read_settings(file)["runs"]:
            settings["runs"].append(run)
            settings["evaluations"][run["evaluation"]] = {"images": images, "shards": shards}
    return settings


def stand_ins(config: Config, folder: Path) -> None:
    """Puts an empty file into a folder for every file that the runs name, and enough prompts."""
    for run in config.runs:
        model, evaluation = config.models[run.model], config.evaluations[run.evaluation]
        for part in (model, model.autoencoder, model.conditioning):
            if part is not None and part.checkpoint:
                _put(folder / part.checkpoint)
        told = model.conditioning and model.conditioning.prompts
        if told and not told.startswith("bundled:"):
            prompts = [{"caption": str(number)} for number in range(evaluation.images)]
            _put(folder / told, json.dumps({"annotations": prompts}))
        for file in (evaluation.extractor_weights, evaluation.clip_weights, f"{evaluation.reference}/0.png"):
            if file is not None and not file.startswith("bundled:"):
                _put(folder / file)


def dry_runs(
    options: list[str], settings: dict[str, Any], folder: Path, times: int
) -> Iterator[dict[str, Any]]:
    """Dry runs of the workflow, then as many of bare rules, in an empty folder.

    Of each its name, jobs and seconds.

    Args:
        options: what Snakemake is told besides the configuration file.
        settings: the configuration.
        folder: an empty one, to run in; it gets files in the place of those that the settings name.
        times: how many of each.

    Raises:
        EdadmError: Snakemake cannot plan the runs.
    """
    config = load_config(settings)
    stand_ins(config, folder)
    runs = {
        run.model: {"variants": list(run.variants), "parts": list(config.models[run.model].parts[1:])}
        for run in config.runs
    }
    bare = {"runs": runs, "shards": config.evaluations[config.runs[0].evaluation].shards}
    for name, said, told in (
        ("workflow", settings, options),
        ("bare rules", bare, ["--snakefile", str(BARE)]),
    ):
        file = folder / f"{name.split()[0]}.json"  # JSON is YAML
        file.write_text(json.dumps(said))
        for _ in range(times):
            yield {"name": name} | _timed(
                [*told, "--configfile", str(file), "--cores", "1", "--dry-run"], folder
            )


def _timed(options: list[str], folder: Path) -> dict[str, Any]:
    """Jobs of a dry run, its seconds by the clock, and those that processors worked."""
    command = [sys.executable, "-m", "snakemake", *options]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    total = re.search(r"^total +(\d+)$", done.stdout, re.MULTILINE)
    if done.returncode or total is None:
        raise EdadmError(
            f"this dry run failed: {' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        )
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"jobs": int(total[1]), "seconds": seconds, "processor_seconds": worked}


def _put(file: Path, text: str = "") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
