"""The workflow on a cluster: the same bytes as on one machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .slurm import missing, running_slurm
from .toy import Toy, job_stats

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.slurm,
    pytest.mark.skipif(bool(missing()), reason=f"no local Slurm: {missing()}"),
]

STAGES_WITH_GPU = ("collect_trajectories", "set_ranges", "reconstruct", "generate", "evaluate", "benchmark")
OPTIONS = (
    *("--workflow-profile", "workflow/profiles/slurm"),
    *("--set-resources", *(f"{rule}:gpu=0" for rule in STAGES_WITH_GPU)),  # this cluster has none
    *("--jobs", "4", "--latency-wait", "10", "--slurm-logdir", "logs/slurm"),
    *("--slurm-no-account", "--slurm-status-command", "squeue"),  # nor accounts
    *("--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2"),
)


@pytest.fixture
def clients(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cluster's clients, as a folder for PATH."""
    with running_slurm(tmp_path_factory.mktemp("slurm")) as folder:
        yield folder


def test_a_cluster_makes_the_same_bytes(
    reference: Toy, clients: Path, package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(clients), prepend=":")
    toy = Toy(tmp_path, package)
    status, said = toy.run(*OPTIONS)
    assert status == 0, said
    jobs = job_stats(said)
    assert said.count("has been submitted with SLURM jobid") == sum(jobs.values()), said
    expected, found = reference.artifacts(), toy.artifacts()
    assert set(found) == set(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert toy.page() == reference.page()
