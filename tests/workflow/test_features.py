"""Images that several jobs look at for their scores."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .toy import CONFIG, REPOSITORY, Toy, commands_of, job_stats

pytestmark = pytest.mark.workflow


def test_large_sets_in_shards_are_looked_at_by_several_jobs(tmp_path: Path) -> None:
    """26,000 images are more than two jobs look at; 102 batches of 256 make three parts of 34."""
    toy = Toy(tmp_path, REPOSITORY)
    evaluations = {"few": {"images": 26_000, "batch_size": 500, "shards": 5}}
    (tmp_path / "config.yaml").write_text(json.dumps(CONFIG | {"evaluations": evaluations}))
    status, said = toy.run("--dry-run", "--printshellcmds", "results/toy/tdac/w4a8/fbr/metrics.json")
    assert status == 0, said
    planned = job_stats(said)
    assert (planned["generate"], planned["extract_features"], planned["evaluate"]) == (10, 3, 1)
    (job,) = [block for block in said.split("rule ") if "features/1_of_3.safetensors\n    log" in block]
    inputs = job[job.index("input: ") + 7 : job.index("\n    output")].split(", ")
    assert inputs == [
        f"results/toy/{variant}/samples/{shard}.npy"
        for variant in ("tdac/w4a8/fbr", "fp32")
        for shard in (1, 2, 3)  # images 8,704 to 17,408, of shards that begin at 5,000, 10,000, 15,500
    ]
    scored = next(command for command in commands_of(said, tmp_path) if command[3] == "evaluate")
    features = [f"results/toy/tdac/w4a8/fbr/features/{part}_of_3.safetensors" for part in range(3)]
    assert [word.removeprefix("--features=") for word in scored if "features" in word] == features
