"""An undisturbed run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from .toy import Toy

pytestmark = pytest.mark.workflow

VARIANTS = ("fp32", "tdac/w4a8/fbr")
STAGES = (
    "convert-checkpoint",
    "collect-trajectories",
    "select-calibration",
    "set-ranges",
    "reconstruct",
    "generate",
    "evaluate",
)


def test_a_run_leaves_every_declared_artifact_and_nothing_else(reference: Toy):
    declared = {
        "fp32/unet.safetensors",
        "tdac/calibration.safetensors",
        "tdac/selection.json",
        "tdac/w4a8/ranges.safetensors",
    }
    declared |= {"tdac/w4a8/fbr/quantized.safetensors", "tdac/w4a8/fbr/losses.csv"}
    declared |= {f"{variant}/{name}" for variant in VARIANTS for name in ("metrics.json", "samples/0.npy")}
    declared |= {f"{name}.made.json" for name in declared if name.endswith((".csv", ".npy"))}
    stored = set(reference.artifacts())
    trajectories = {
        name for name in stored if name.startswith(("toy/trajectories/0.zarr/", "toy/trajectories/1.zarr/"))
    }
    tables = {"report/ablation.csv", "report/ablation.md", "report/gallery.html"}
    assert stored - trajectories == {f"toy/{name}" for name in declared} | tables
    for name in ("toy/speed.json", "report/index.html", "report/metrics.csv"):
        assert (reference.results / name).stat().st_size > 0


def test_every_stage_has_a_log(reference: Toy):
    logs = reference.folder / "logs"
    assert {path.name.removesuffix(".log") for path in logs.iterdir()} == {*STAGES, "benchmark", "report"}
    assert "4/4 batches" in (logs / "collect-trajectories/toy/0.log").read_text()


def test_scores_are_of_the_images(reference: Toy):
    for variant in VARIANTS:
        folder = reference.results / "toy" / variant
        assert np.load(folder / "samples/0.npy").shape == (8, 3, 32, 32)
        scores = json.loads((folder / "metrics.json").read_text())
        assert scores["conditions"]["images"] == 8
        assert (scores["psnr"] is None) == (variant == "fp32")


def test_the_report_shows_every_variant(reference: Toy):
    assert all(variant in reference.page() for variant in VARIANTS)
