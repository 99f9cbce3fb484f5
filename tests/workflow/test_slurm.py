"""The workflow on a cluster: the same bytes as on one machine, whatever befalls jobs and nodes."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

import psutil
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
    "--set-resources",  # a GPU is asked for, as the profile says, and nothing computes on it, since it is imagined
    *(f"{rule}:device=cpu" for rule in COMPUTING),
    *("--jobs", "4", "--latency-wait", "10", "--slurm-logdir", "logs/slurm"),
    *("--slurm-no-account", "--slurm-status-command", "squeue"),  # this cluster keeps no accounts
    *("--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "2"),
)


@pytest.fixture
def slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slurm]:
    """A cluster whose clients are found first, and that gives up a node after 15 s."""
    with running_slurm(tmp_path_factory.mktemp("slurm"), node_timeout=15) as cluster:
        monkeypatch.setenv("PATH", str(cluster.clients), prepend=":")
        yield cluster


@pytest.fixture
def projects(package: Path, tmp_path: Path) -> tuple[Toy, Toy]:
    """A project for this machine, and the same one for the cluster."""
    (tmp_path / "here").mkdir()
    return Toy(tmp_path / "here", package), Toy(tmp_path, package)


def test_a_cancelled_job_is_named_and_tried_again_with_twice_the_memory(
    slurm: Slurm, projects: tuple[Toy, Toy]
) -> None:
    """Images of the full-precision network, the least that has two stages."""
    here, toy = projects
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
    assert "gpu=1" in re.findall(r"rule generate:.*?resources: (.*?)\n", said[1], re.DOTALL)[0].split(", ")
    assert toy.artifacts() == here.artifacts()


def generating(toy: Toy, without: Collection[psutil.Process] = ()) -> psutil.Process | None:
    """A process that makes images in the project's folder, other than those known."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            here = process.cwd() == str(toy.folder) and process.cmdline()[1:4] == ["-m", "edadm", "generate"]
            if here and process not in without:
                return process
    return None


@pytest.mark.long
def test_copies_of_a_job_meet_when_a_node_and_snakemake_die(slurm: Slurm, projects: tuple[Toy, Toy]) -> None:
    """Three make the same images: one whose node is lost, one that Slurm queued again, one of a second Snakemake."""
    here, toy = projects
    with here.started(IMAGES) as local, toy.started(*OPTIONS, "--", IMAGES) as run:
        run.until(lambda: list((toy.folder / IMAGES).parent.glob(".0.npy.*.making")))
        lost = run.until(lambda: generating(toy))
        lost.suspend()
        node = lost.environ()["SLURMD_NODENAME"]
        slurm.kill(node)
        queued_again = run.until(lambda: generating(toy, [lost]))
        queued_again.suspend()
        assert queued_again.environ()["SLURM_JOB_ID"] == lost.environ()["SLURM_JOB_ID"]
        assert queued_again.environ()["SLURMD_NODENAME"] != node
        run.process.kill()
        assert local.wait() == 0, local.text()
    slurm.start(node)
    with toy.started(*OPTIONS, "--", IMAGES) as run:
        submitted_again = run.until(lambda: generating(toy, [lost, queued_again]))
        assert submitted_again.environ()["SLURM_JOB_ID"] != queued_again.environ()["SLURM_JOB_ID"]
        for process in (lost, queued_again):
            with contextlib.suppress(
                psutil.NoSuchProcess
            ):  # Slurm ends the one of the lost node when that is back
                process.resume()
        assert run.wait() == 0, run.text()
    slurm.end(timeout=120)
    assert toy.artifacts() == here.artifacts()
    assert toy.planned(IMAGES) == {}


@pytest.mark.long
def test_a_group_of_stages_is_one_job_with_one_gpu(reference: Toy, slurm: Slurm, tmp_path: Path) -> None:
    """As docs/workflow.md says how; the time of both is asked for, and the memory of the larger."""
    shutil.copytree(reference.folder, tmp_path / "toy", symlinks=True)
    toy = reference.at(tmp_path / "toy")
    made = toy.results / "toy/tdac/w4a8/fbr/quantized.safetensors"
    for file in (made, toy.results / "toy/tdac/w4a8/ranges.safetensors"):
        file.unlink()
    target = str(made.relative_to(toy.folder))
    chain = ("--groups", "set_ranges=chain", "reconstruct=chain")
    with toy.started(*OPTIONS, *chain, "--", target) as run:
        (job,) = run.until(
            lambda: re.findall(r"has been submitted with SLURM jobid '?(\d+)", run.text()), pause=0.3
        )
        asked, memory = slurm.ask("scontrol", "show", "job", job), slurm.memory(job)
        assert run.wait() == 0, run.text()
    assert job_stats(run.text()) == {"set_ranges": 1, "reconstruct": 1}
    assert run.text().count("has been submitted with SLURM jobid") == 1
    assert re.findall(r"TresPer\w+=(\S+)", asked) == ["gres/gpu:1"]
    assert (memory, *re.findall(r"TimeLimit=(\S+)", asked)) == (8000, "1-04:00:00")
    assert toy.artifacts() == reference.artifacts()


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
