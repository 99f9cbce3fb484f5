"""How many jobs `shards: auto` makes, on machines whose GPUs are only names; nothing runs."""

from __future__ import annotations

import json

import pytest

from .toy import CONFIG, REPOSITORY, Toy

pytestmark = pytest.mark.workflow

QUANTIZED = "tdac/w4a8/fbr"
GPU, SLURM = (("--workflow-profile", f"workflow/profiles/{name}") for name in ("gpu", "slurm"))
STORE = """\
from snakemake_interface_storage_plugins.storage_object import StorageObjectRead, StorageObjectWrite
from snakemake_interface_storage_plugins.storage_provider import StorageProviderBase


class StorageProvider(StorageProviderBase):
    def is_valid_query(query):
        raise AssertionError("the run ends before it names a file")

    example_queries = default_max_requests_per_second = use_rate_limiter = rate_limiter_key = is_valid_query


class StorageObject(StorageObjectRead, StorageObjectWrite):
    pass
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Toy:
    """A project with 400 batches of 6 calls of the network each, for trajectories as for images, and four GPUs."""
    toy = Toy(tmp_path_factory.mktemp("toy"), REPOSITORY)
    model = CONFIG["models"]["toy"]
    recorded = model["trajectories"] | {"count": 800, "batch_size": 2, "shards": "auto"}
    run = CONFIG["runs"][0] | {"variants": ["fp32", QUANTIZED, f"{QUANTIZED}/integer"]}
    (toy.folder / "config.yaml").write_text(
        json.dumps(
            CONFIG
            | {"runs": [run], "models": {"toy": model | {"trajectories": recorded}}}
            | {"evaluations": {"few": {"images": 1600, "batch_size": 4}}}
        )
    )
    smi = toy.folder / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text('#!/bin/sh\nfor i in 0 1 2 3; do echo "GPU $i: H200 (UUID: GPU-$i)"; done\n')
    smi.chmod(0o755)
    return toy


@pytest.mark.parametrize(
    ("options", "each", "on_the_cpu"),
    [
        ((*GPU, "--cores", "3"), 4, 3),  # a place on each GPU, or a core
        ((*SLURM, "--resources", "gpu=3"), 3, 4),  # no more than there are GPUs; else 500 calls a job
    ],
)
def test_there_are_as_many_jobs_as_places(
    options: tuple[str, ...], each: int, on_the_cpu: int, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(toy.folder / "bin"), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    planned = toy.planned(*options)
    assert planned["collect_trajectories"] == each
    assert planned["generate"] == 2 * each + on_the_cpu


def test_where_jobs_see_no_note_of_the_number_it_is_asked_for(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a store in place of a shared folder: here one that can be named, and nothing else."""
    package = toy.folder / "plugins" / "snakemake_storage_plugin_toy"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(STORE)
    path = f"{REPOSITORY}:{package.parent}"
    monkeypatch.setattr(Toy, "environment", toy.environment | {"PYTHONPATH": path})
    store = ("--default-storage-provider", "toy", "--default-storage-prefix", "toy://here")
    status, said = toy.run("--dry-run", *SLURM, *store)
    assert status == 1, said
    assert said.splitlines()[-1] == (
        "jobs without a shared file system cannot see how many shards `auto` came to; write a number, "
        "`shards: N`, for models.toy.trajectories, evaluations.few"
    )
