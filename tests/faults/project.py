"""A tiny project, and every stage of it as a command line that runs in this process or in a child of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from edadm.networks.build import build_network
from edadm.networks.layouts.ermongroup import from_diffusers
from edadm.networks.settings.architecture import Architecture

from ..conftest import reinitialise

ARCHITECTURE = {
    "image_size": 32,  # what the bundled feature extractor wants
    "channels": 8,
    "multipliers": [1, 2],
    "blocks_per_level": 1,
    "attention_resolutions": [],
    "norm_groups": 4,
}
PRESETS: dict[str, Any] = {
    "models": {
        "toy": {
            "checkpoint": "toy.safetensors",
            "architecture": ARCHITECTURE,
            "sampler": {"steps": 3},
            "trajectories": {"count": 8, "batch_size": 2, "feature_rows": 2, "shards": 2},
        }
    },
    "calibrations": {"tdac": {"selector": "tdac", "size": 5, "held_out": 1, "lambda": 1.2, "radius": 0.5}},
    "bits": {"w4a8": {"weights": 4, "activations": 8, "range_batch_size": 4, "range_bins": 64}},
    "reconstructions": {"fbr": {"method": "fbr", "iterations": 3, "batch_size": 2}},
    "evaluations": {"few": {"images": 4, "batch_size": 4, "shards": 2, "scores": ["fid"]}},
    "runs": [{"model": "toy", "variants": ["fp32", "tdac/w4a8/fbr"], "evaluation": "few"}],
}
QUANTIZED = "toy/tdac/w4a8/fbr"


@dataclass(frozen=True)
class Stage:
    """A command line, started in the project's folder, and the artifacts it makes there."""

    name: str
    words: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def argv(self) -> list[str]:
        """The whole command line."""
        return ["edadm", *self.name.split(), *self.words, "--config=config.yaml"]


def stages() -> list[Stage]:
    """All of the project, in order; the folder is its results folder, too."""
    model, few = ("--model=toy",), ("--evaluation=few",)
    unet, chosen, ranges = (
        "toy/fp32/unet.safetensors",
        "toy/tdac/calibration.safetensors",
        "toy/tdac/w4a8/ranges.safetensors",
    )
    stores = [f"toy/trajectories/{shard}.zarr" for shard in range(2)]
    found = [Stage("convert-checkpoint", (*model, f"--output={unet}"), (unet,))]
    for shard, store in enumerate(stores):
        progress = f"--progress=toy/trajectories/.{shard}.progress"
        words = (*model, f"--unet={unet}", f"--shard={shard}", progress, f"--output={store}")
        found.append(Stage("collect-trajectories", words, (store,)))
    summary = "toy/tdac/selection.json"
    words = (*stores, "--calibration=tdac", f"--output={chosen}", f"--summary={summary}")
    found.append(Stage("select-calibration", words, (chosen, summary)))
    given = (*model, "--bits=w4a8", f"--unet={unet}", f"--calibration-set={chosen}")
    found.append(Stage("set-ranges", (*given, f"--output={ranges}"), (ranges,)))
    packed, losses = f"{QUANTIZED}/quantized.safetensors", f"{QUANTIZED}/losses.csv"
    words = (*given, "--reconstruction=fbr", f"--ranges={ranges}", f"--losses={losses}")
    words = (*words, "--progress=toy/tdac/w4a8/.fbr.progress", f"--output={packed}")
    found.append(Stage("reconstruct", words, (packed, losses)))
    images = {
        folder: [f"{folder}/samples/{shard}.npy" for shard in range(2)] for folder in ("toy/fp32", QUANTIZED)
    }
    for weights, folder in ((unet, "toy/fp32"), (packed, QUANTIZED)):
        for shard, file in enumerate(images[folder]):
            words = (*model, *few, f"--weights={weights}", f"--shard={shard}", f"--output={file}")
            found.append(Stage("generate", words, (file,)))
    for folder, references in (("toy/fp32", ()), (QUANTIZED, images["toy/fp32"])):
        words = (*images[folder], *few, *(f"--reference={file}" for file in references))
        scores, features = f"{folder}/metrics.json", f"{folder}/features/0_of_1.safetensors"
        if references:
            told = (*words, "--job=0", "--jobs=1", f"--output={features}")
            found.append(Stage("extract-features", told, (features,)))
            words = (*words, f"--features={features}")
        found.append(Stage("evaluate", (*words, f"--output={scores}"), (scores,)))
    words = (*model, f"fp32={unet}", f"tdac/w4a8/fbr={packed}", "--batch-size=1", "--output=toy/speed.json")
    found.append(Stage("benchmark unet", words, ("toy/speed.json",)))
    pages = tuple(
        f"report/{name}"
        for name in ("index.html", "gallery.html", "metrics.csv", "metrics.md", "ablation.csv", "ablation.md")
    )
    found.append(Stage("report", ("--results=.", f"--output={pages[0]}"), pages))
    return found


def write_presets(folder: Path) -> None:
    """The configuration and a checkpoint of random weights in the layout of ermongroup/ddim."""
    unet = build_network(Architecture.model_validate(ARCHITECTURE))
    reinitialise(unet, 0)
    state = {name: tensor.contiguous() for name, tensor in from_diffusers(unet.state_dict()).items()}
    save_file(state, folder / "toy.safetensors")
    (folder / "config.yaml").write_text(json.dumps(PRESETS))  # JSON is YAML
