"""Jobs of a run on this machine are forks of its server."""

from __future__ import annotations

import csv
from pathlib import Path

import psutil
import pytest

from ..warm.serving import until
from .toy import REPOSITORY, Run, Toy

pytestmark = pytest.mark.workflow

TARGET = "results/toy/fp32/unet.safetensors"


def servers(run: Run) -> dict[int, int]:
    """Parents of the server and its forks."""
    found = {}
    for process in run.members():
        try:
            if "edadm.warm.server" in process.cmdline():
                found[process.pid] = process.ppid()
        except psutil.Error:
            continue
    return found


def test_a_job_is_a_fork_whose_memory_counts_and_the_server_ends_with_snakemake(tmp_path: Path) -> None:
    toy = Toy(tmp_path, REPOSITORY)
    with toy.started(TARGET) as run:
        parents = run.until(lambda: found if len(found := servers(run)) > 1 else None)
        (server,) = (process for process, parent in parents.items() if parent == run.process.pid)
        assert [parent for process, parent in parents.items() if process != server] == [server]
        assert run.wait() == 0, run.text()
        until(lambda: not servers(run))
    with open(toy.results / "times" / "convert-checkpoint" / "toy.tsv") as file:
        (row,) = csv.DictReader(file, delimiter="\t")
    assert float(row["max_rss"]) > 200  # megabytes, of which a client has thirty
    assert toy.planned(TARGET) == {}
