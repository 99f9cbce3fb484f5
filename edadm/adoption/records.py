"""What Snakemake would run, and what its records say of files that it made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any, NamedTuple

from edadm.errors import EdadmError

RECORDS = Path(".snakemake")
_LONGEST = 254  # characters of a record's name in one folder
_SKEW = 5.0  # seconds by which the clocks of machines that share a folder may differ


def snakemake(*options: str) -> str:
    """What Snakemake says.

    Raises:
        EdadmError: it failed, with what it said.
    """
    command = [sys.executable, "-m", "snakemake", *options]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    said = done.stdout + done.stderr
    if done.returncode:
        raise EdadmError(f"snakemake stopped and said:\n{said.strip()}")
    return said


class Job(NamedTuple):
    """A job that Snakemake would run."""

    rule: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    command: str


def planned_jobs(said: str) -> list[Job]:
    """The jobs of a dry run with shell commands (`snakemake -n -p`), each after those it waits for."""
    jobs = []
    for block in said.split("\nrule ")[1:]:
        lines = block.splitlines()
        listed = {
            name: line.strip().partition(": ")[2].split(", ")
            for line in lines
            for name in ("input", "output")
            if _names(line, name)
        }
        command = next(
            (line[line.index("python3 -m edadm") :] for line in lines if "python3 -m edadm" in line), None
        )
        if command:
            jobs.append(
                Job(
                    lines[0].strip(":"),
                    tuple(listed.get("input", ())),
                    tuple(listed.get("output", ())),
                    command,
                )
            )
    return _in_order(jobs)


def _names(line: str, name: str) -> bool:
    return line.strip().startswith(f"{name}: ")


def _in_order(jobs: list[Job]) -> list[Job]:
    ordered: list[Job] = []
    while jobs:
        waiting = {file for job in jobs for file in job.outputs}
        ready = [job for job in jobs if not waiting & set(job.inputs)]
        assert ready, "the jobs wait for each other"
        ordered += ready
        jobs = [job for job in jobs if job not in ready]
    return ordered


def recorded_command(output: str) -> str | None:
    """The shell command with which Snakemake made a file, of which it keeps a record; None without one."""
    command = _record(output).get("shellcmd")
    return command if isinstance(command, str) else None


def newer_input(output: str) -> str | None:
    """An input that was made, or changed, after the work on a file had begun; None if there is none.

    What Snakemake made counts by its record, since a copy of a folder has other times.
    """
    record = _record(output)
    for source in record.get("input", ()):
        made = _record(source).get("endtime")
        if made is None and os.path.exists(source):
            made = os.path.getmtime(source)
        if made is not None and made > record["starttime"] + _SKEW:
            return str(source)
    return None


def _record(output: str) -> dict[str, Any]:
    name = urlsafe_b64encode(output.encode()).decode()
    pieces = [name[start : start + _LONGEST] for start in range(0, len(name), _LONGEST)]
    path = RECORDS.joinpath("metadata", *(f"@{piece}" for piece in pieces[:-1]), pieces[-1])
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
