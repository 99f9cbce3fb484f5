"""The workflow on a cluster: the same bytes as on one machine, whatever befalls jobs and nodes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .slurm import Slurm, missing, running_slurm
from .toy import Toy, job_stats

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.slurm,
    pytest.mark.skipif(bool(missing()), reason=f"no local Slurm: {missing()}"),
]

IMAGES = "results/toy/fp32/samples/0.npy"
COMPUTING = ("collect_trajectories", "set_ranges", "reconstruct", "generate", "evaluate", "benchmark")
OPTIONS = (
    *("--workflow-profile", "workflow/profiles/slurm"),
    "--set-resources",  # a GPU is asked for, and nothing computes on it, since it is imagined
    *(f"{rule}:{told}" for rule in COMPUTING for told in ("gpu=1", "device=cpu")),
    *("--jobs", "4", "--latency-wait", "10", "--slurm-logdir", "logs/slurm"),
    *("--slurm-no-account", "--slurm-status-command", "squeue"),  # this cluster keeps no accounts
    *("--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2"),
)


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """A cluster whose clients are found first."""
    with running_slurm(tmp_path_factory.mktemp("slurm")) as cluster:
        monkeypatch.setenv("PATH", str(cluster.clients), prepend=":")
        yield cluster


def test_a_cancelled_job_is_named_and_tried_again_with_twice_the_memory(
    slurm: Slurm, package: Path, tmp_path: Path
) -> None:
    """Images of the full-precision network, the least that has two stages."""
    (tmp_path / "here").mkdir()
    here, toy = Toy(tmp_path / "here", package), Toy(tmp_path, package)
    with here.started(IMAGES) as local, toy.started(*OPTIONS, "--", IMAGES) as run:
        (job,) = run.until(lambda: slurm.jobs("generate"), pause=0.3)
        slurm.ask("scancel", job)
        (again,) = run.until(lambda: slurm.jobs("generate").keys() - {job}, pause=0.3)
        memory = [slurm.memory(each) for each in (job, again)]
        said = run.wait(), run.text()
        assert (local.wait(), said[0]) == (0, 0), local.text() + said[1]
    assert f"SLURM-job '{job}' failed, SLURM status is: 'CANCELLED'" in said[1]
    assert job_stats(said[1]) == {"convert_checkpoint": 1, "generate": 1}
    assert said[1].count("has been submitted with SLURM jobid") == 3
    assert memory == [4000, 8000]
    assert toy.artifacts() == here.artifacts()


@pytest.mark.long
def test_a_cluster_makes_the_same_bytes(reference: Toy, slurm: Slurm, package: Path, tmp_path: Path) -> None:
    toy = Toy(tmp_path, package)
    status, said = toy.run(*OPTIONS)
    assert status == 0, said
    jobs = job_stats(said)
    assert said.count("has been submitted with SLURM jobid") == sum(jobs.values()), said
    expected, found = reference.artifacts(), toy.artifacts()
    assert set(found) == set(expected)
    assert [name for name in expected if found[name] != expected[name]] == []
    assert toy.page() == reference.page()
