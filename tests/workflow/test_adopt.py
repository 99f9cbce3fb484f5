"""Results with the records of another version are taken over, but for what is damaged and what follows from it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .toy import PATIENCE, Toy

pytestmark = pytest.mark.workflow

QUICK = {"evaluate": 2, "benchmark": 1, "report": 1}  # always made again


def test_what_means_the_same_is_kept_and_what_is_damaged_is_made_again(
    reference: Toy, tmp_path: Path
) -> None:
    shutil.copytree(reference.folder, tmp_path / "toy", symlinks=True)
    toy = reference.at(tmp_path / "toy")
    for record in (toy.folder / ".snakemake/metadata").rglob("*"):
        if record.is_file():
            os.chmod(record, 0o644)
            record.write_text(
                json.dumps(json.loads(record.read_text()) | {"code": "another", "params": ["'another'"]})
            )
    everything = toy.planned()
    assert everything["collect_trajectories"] == 2
    assert everything["reconstruct"] == 1
    images = toy.results / "toy/tdac/w4a8/fbr/samples/0.npy"
    images.write_bytes(images.read_bytes()[:-1])
    before = {path: content for path, content in toy.artifacts().items() if not path.startswith(".")}
    command = [sys.executable, "-m", "edadm", "adopt", "results"]
    done = subprocess.run(
        command,
        cwd=toy.folder,
        env=toy.environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "taken over: results/toy/tdac/w4a8/fbr/quantized.safetensors" in done.stderr
    assert "made again: results/toy/tdac/w4a8/fbr/samples/0.npy: it is damaged (" in done.stderr
    assert toy.planned() == {"generate": 1, **QUICK}
    assert {path: content for path, content in toy.artifacts().items() if path in before} == before
